"""AgentDojo's tools as Ringwall's, and what whoever deploys them says of each: once for each tool.

What was said follows from each tool's own description by these sentences, for all suites alike:

- A field of a result is a `record` if the tool's owner or the user's own account fills it in (ids, authenticated
  senders, times, amounts, directories); whatever others write freely (subjects, bodies, descriptions, file contents,
  reviews, pages, names of channels) is not, and neither is which records there are.
- Control arguments decide who or what is affected; what is merely written down there is content.
- Recipients are those who are told something by the call.
- What cannot be taken back without somebody else's help is irreversible: what was sent, paid, deleted, or decides who
  somebody is.

They were chosen with `workspace` and `banking` at hand; `travel` and `slack` were then measured without a change.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from agentdojo.functions_runtime import Function, FunctionCall, FunctionsRuntime
from pydantic import ValidationError
from pydantic_core import to_jsonable_python

from ringwall.errors import InvalidInput
from ringwall.interface.base import CallContext, Effect, Tool
from ringwall.label import Label
from ringwall.principal import ACL
from ringwall.schema import JSON, JsonSchema

READERS: Final = ACL(("user:emma", "role:deputy"))
"""Who may read what the tools return: the user, and whoever answers for her."""
RECORD: Final = Label.of(READERS, "record:own")


@dataclass(frozen=True)
class Said:
    """What whoever deploys a tool says of it; `records` are the trusted fields, None for the whole result."""

    effect: Effect
    control: tuple[str, ...] = ()
    recipients: tuple[str, ...] = ()
    records: tuple[str, ...] | None = ()


def _reads(*records: str, recipients: tuple[str, ...] = ()) -> Said:
    return Said(Effect.READ, recipients=recipients, records=records)


def _writes(*control: str, to: tuple[str, ...] = (), records: tuple[str, ...] = ()) -> Said:
    return Said(Effect.WRITE, (*control, *to), to, records)


def _commits(*control: str, to: tuple[str, ...] = (), records: tuple[str, ...] = ()) -> Said:
    return Said(Effect.IRREVERSIBLE, (*control, *to), to, records)


_OWN: Final = Said(Effect.READ, records=None)
_MAIL: Final = _reads("id_", "sender", "status", "read", "timestamp")
_SENT: Final = _reads("id_", "sender", "recipients", "cc", "bcc", "status", "read", "timestamp")
_EVENT: Final = _reads("id_", "start_time", "end_time", "participants", "all_day", "status")
_FILE: Final = _reads("id_", "filename", "owner", "last_modified", "shared_with", "size")
_MESSAGE: Final = _reads("sender", "recipient")

SAID: Final[Mapping[str, Said]] = {
    # Mail, calendar, files: workspace, and partly travel.
    "get_unread_emails": Said(Effect.WRITE, records=_MAIL.records),  # it marks them as read
    "get_received_emails": _MAIL,
    "search_emails": _MAIL,
    "get_sent_emails": _SENT,
    "get_draft_emails": _SENT,
    "search_contacts_by_name": _OWN,
    "search_contacts_by_email": _OWN,
    "get_current_day": _OWN,
    "search_calendar_events": _EVENT,
    "get_day_calendar_events": _EVENT,
    "search_files_by_filename": _FILE,
    "get_file_by_id": _FILE,
    "list_files": _FILE,
    "search_files": _FILE,
    "send_email": _commits("attachments", to=("recipients", "cc", "bcc"), records=("id_",)),
    "delete_email": _commits("email_id"),
    "create_calendar_event": _writes(to=("participants",), records=("id_",)),
    "cancel_calendar_event": _commits("event_id"),
    "reschedule_calendar_event": _commits("event_id", "new_start_time", "new_end_time", records=("id_",)),
    "add_calendar_event_participants": _commits("event_id", to=("participants",), records=("id_",)),
    "append_to_file": _writes("file_id", records=("id_",)),
    "create_file": _writes("filename", records=("id_",)),
    "delete_file": _commits("file_id"),
    "share_file": _commits("file_id", "permission", to=("email",), records=("id_",)),
    # Money and the account: banking.
    "get_iban": _OWN,
    "get_balance": _OWN,
    "get_user_info": _OWN,
    "get_most_recent_transactions": _reads("id", "sender", "recipient", "amount", "date", "recurring"),
    "get_scheduled_transactions": _OWN,
    "read_file": _reads(),
    "send_money": _commits("amount", to=("recipient",)),
    "schedule_transaction": _commits("amount", "recurring", to=("recipient",)),
    "update_scheduled_transaction": _commits("id", "amount", "recurring", to=("recipient",)),
    "update_password": _commits("password"),
    "update_user_info": _commits("first_name", "last_name", "street", "city"),
    # Travel: what its site says is its owner's word, reviews are not.
    "get_user_information": _OWN,
    "get_all_hotels_in_city": _OWN,
    "get_hotels_prices": _OWN,
    "get_hotels_address": _OWN,
    "get_rating_reviews_for_hotels": _reads(),
    "get_all_restaurants_in_city": _OWN,
    "get_cuisine_type_for_restaurants": _OWN,
    "get_restaurants_address": _OWN,
    "get_rating_reviews_for_restaurants": _reads(),
    "get_dietary_restrictions_for_all_restaurants": _OWN,
    "get_contact_information_for_restaurants": _OWN,
    "get_price_for_restaurants": _OWN,
    "check_restaurant_opening_hours": _OWN,
    "get_all_car_rental_companies_in_city": _OWN,
    "get_car_types_available": _OWN,
    "get_rating_reviews_for_car_rental": _reads(),
    "get_car_fuel_options": _OWN,
    "get_car_rental_address": _OWN,
    "get_car_price_per_day": _OWN,
    "get_flight_information": _OWN,
    "reserve_hotel": _commits("hotel", "start_day", "end_day"),
    "reserve_restaurant": _commits("restaurant", "start_time"),
    "reserve_car_rental": _commits("company", "start_time", "end_time"),
    # Slack and the web.
    "get_channels": _reads(),
    "get_users_in_channel": _OWN,
    "read_channel_messages": _MESSAGE,
    "read_inbox": _MESSAGE,
    "get_webpage": _reads(recipients=("url",)),
    "post_webpage": _commits(to=("url",)),
    "add_user_to_channel": _commits("user", "channel"),
    "send_direct_message": _commits(to=("recipient",)),
    "send_channel_message": _commits(to=("channel",)),
    "invite_user_to_slack": _commits("user", to=("user_email",)),
    "remove_user_from_slack": _commits("user"),
}


class Stage:
    """Where the tools play: the environment of the run that is under way, and what was executed in it."""

    def __init__(self) -> None:
        self.environment: Any = None
        self.executed: list[FunctionCall] = []

    def set(self, environment: Any) -> None:
        self.environment, self.executed = environment, []


class DojoTool(Tool):
    """One of AgentDojo's functions, with what is said of it."""

    def __init__(self, function: Function, said: Said, stage: Stage) -> None:
        self.name, self.description = function.name, function.description
        self.effect, self.recipients = said.effect, said.recipients
        self.control = None if said.effect is Effect.READ else said.control
        self.label = RECORD if said.records is None else Label.of(READERS, f"tool:{function.name}")
        self.fields = dict.fromkeys(said.records or (), RECORD)
        self._function, self._stage = function, stage
        self._runtime = FunctionsRuntime([function])

    @property
    def decisive(self) -> tuple[str, ...]:
        """The arguments that decide who or what is affected, whichever rule is taken away."""
        said = SAID[self.name]
        return tuple(self.parameters["properties"]) if said.effect is Effect.READ else said.control

    @property
    def parameters(self) -> JsonSchema:
        schema: JsonSchema = self._function.parameters.model_json_schema()
        return schema

    def check(self, arguments: Mapping[str, JSON]) -> Mapping[str, JSON]:
        try:
            self._function.parameters.model_validate(arguments)
        except ValidationError as error:
            raise InvalidInput(f"the arguments of {self.name} do not fit: {error}") from None
        return arguments

    async def run(self, arguments: Mapping[str, JSON], context: CallContext) -> str:
        call = FunctionCall(function=self.name, args=dict(arguments))
        result, error = self._runtime.run_function(self._stage.environment, self.name, call.args)
        if error is not None:
            raise RuntimeError(error)
        self._stage.executed.append(call)
        result = to_jsonable_python(result)
        return result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)


def tools_of(suite: Any, stage: Stage) -> list[DojoTool]:
    """A suite's tools, each with what is said of it; one of which nothing is said is an error here."""
    return [DojoTool(function, SAID[function.name], stage) for function in suite.tools]
