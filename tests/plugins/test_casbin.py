"""Policies in casbin's language, proved equal to casbin's own enforcer."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import casbin
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringwall.deployment.base import Decision, Policy, Verdict
from ringwall.deployment.contract import PolicyContract
from ringwall.errors import BadPolicy, ConfigurationError, StoreError
from ringwall.principal import Principal
from ringwall_casbin import CasbinPolicy
from ringwall_casbin.model import BUNDLED

STANDARD = """
# the rules of the policy contract
g, role:staff, role:guest, *
g, role:manager, role:staff, *
g, user:bo, role:staff, acme
g, role:staff, collection:kitchen, *
g, role:manager, collection:wages, acme

p, role:guest, *, app:dinner, ask, allow
p, role:guest, *, tool:book_table, call, allow
p, *, *, tool:search, call, allow
p, doc:*, *, tool:book_table, call, ask
p, web:*, *, tool:search, call, ask
p, web:shady.example, *, tool:*, call, deny
p, role:banned, *, tool:book_table, call, deny
p, role:manager, acme, *, approve, allow
"""
MATCHER = "keyMatch(r.dom, p.dom) && keyMatch(r.obj, p.obj) && keyMatch(r.act, p.act) && "


@pytest.fixture
def policy_file(tmp_path: Path) -> Path:
    path = tmp_path / "policy.csv"
    path.write_text(STANDARD)
    return path


@pytest.fixture
def database(tmp_path: Path) -> str:
    """A database that holds the standard rules, written the way any casbin application writes them."""
    import sqlalchemy
    import sqlalchemy_adapter

    url = f"sqlite:///{tmp_path / 'policy.db'}"
    engine = sqlalchemy.create_engine(url)
    adapter = sqlalchemy_adapter.Adapter(engine)
    for kind, *fields in (line.split(", ") for line in STANDARD.splitlines() if line.startswith(("p", "g"))):
        adapter.add_policy(kind, kind, fields)
    engine.dispose()
    return url


class TestAPolicyFile(PolicyContract):
    @pytest.fixture
    def policy(self, policy_file: Path) -> Policy:
        self.path = policy_file
        return CasbinPolicy.from_files(policy_file)

    async def revoke(self, policy: Policy) -> None:
        assert isinstance(policy, CasbinPolicy)
        self.path.write_text(STANDARD.replace("g, user:bo, role:staff, acme\n", ""))
        await policy.reload()


class TestADatabase(PolicyContract):
    @pytest.fixture
    async def policy(self, database: str) -> AsyncIterator[Policy]:
        policy = CasbinPolicy.from_database(database)
        yield policy
        await policy.close()

    async def revoke(self, policy: Policy) -> None:
        assert isinstance(policy, CasbinPolicy)
        assert await policy.remove_grouping_policy("user:bo", "role:staff", "acme")


async def test_a_decision_names_the_line(policy_file: Path) -> None:
    decision = await CasbinPolicy.from_files(policy_file).decide(Principal("doc:menu.md"), "call", "tool:book_table")
    line = "p, doc:*, *, tool:book_table, call, ask"
    assert decision == Decision(Verdict.ASK, reason="doc:* must ask to call tool:book_table", rule=line)


async def test_an_edit_is_obeyed_by_the_next_call_and_by_whoever_opens_the_database_later(
    database: str,
) -> None:
    policy, sam = CasbinPolicy.from_database(database), Principal.user("sam", tenant="acme")
    assert await policy.add_policy("user:sam", "acme", "tool:stove", "call")
    assert await policy.add_grouping_policy("user:sam", "collection:kitchen", "acme")
    assert not await policy.add_policy("user:sam", "acme", "tool:stove", "call")
    another = CasbinPolicy.from_database(database)
    for opened in (policy, another):
        assert await opened.decide(sam, "call", "tool:stove")
        assert "acme::collection:kitchen" in await opened.grants(sam)

    assert await policy.remove_policy("user:sam", "acme", "tool:stove", "call")
    assert not await policy.remove_policy("user:sam", "acme", "tool:stove", "call")
    assert not await policy.decide(sam, "call", "tool:stove")
    assert await another.decide(sam, "call", "tool:stove")
    await another.reload()
    assert not await another.decide(sam, "call", "tool:stove")
    await policy.close()
    await another.close()


async def test_a_reload_that_finds_nothing_new_keeps_the_version(database: str) -> None:
    policy = CasbinPolicy.from_database(database)
    before = policy.version
    await policy.reload()
    assert policy.version == before
    await policy.close()


async def test_an_edit_that_casbin_would_misread_is_refused_before_it_is_stored(database: str) -> None:
    policy = CasbinPolicy.from_database(database)
    before = policy.version
    for sub, dom, obj, act, eft in [
        ("user:sam", "acme", "tool:(a", "call", "allow"),
        ("user:sam", "acme", "tool:a, b", "call", "allow"),
        ("user:sam", "", "tool:a", "call", "allow"),
        ("user:sam", "acme", "tool:*_a", "call", "allow"),
        ("role:*", "acme", "tool:a", "call", "deny"),
        ("user:sam", "acme", "tool:a", "call", "permit"),
    ]:
        with pytest.raises(BadPolicy):
            await policy.add_policy(sub, dom, obj, act, eft)
    with pytest.raises(BadPolicy, match="circle"):
        await policy.add_grouping_policy("role:guest", "role:manager", "acme")
    await policy.reload()
    assert policy.version == before
    await policy.close()


async def test_an_edit_that_could_not_be_stored_changes_nothing(database: str) -> None:
    policy, sam = CasbinPolicy.from_database(database), Principal.user("sam", tenant="acme")
    path = database.removeprefix("sqlite:///")
    before = policy.version
    connection = sqlite3.connect(path)
    connection.execute("ALTER TABLE casbin_rule RENAME TO hidden")
    connection.close()
    with pytest.raises(StoreError):
        await policy.add_policy("user:sam", "acme", "tool:stove", "call")
    with pytest.raises(StoreError):
        await policy.remove_policy("web:shady.example", "*", "tool:*", "call", "deny")
    with pytest.raises(StoreError):
        await policy.reload()
    assert policy.version == before
    assert not await policy.decide(sam, "call", "tool:stove")
    assert not await policy.decide(Principal("web:shady.example"), "call", "tool:search")
    await policy.close()


def test_a_row_of_a_kind_that_the_model_does_not_define_is_refused_not_skipped(database: str) -> None:
    connection = sqlite3.connect(database.removeprefix("sqlite:///"))
    connection.execute("UPDATE casbin_rule SET ptype = 'p2' WHERE v4 = 'deny'")
    connection.commit()
    connection.close()
    with pytest.raises(BadPolicy, match="p2"):
        CasbinPolicy.from_database(database)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("p, role:guest, *, app:dinner, ask", "<allow | ask | deny>"),
        ("p, role:guest, *, app:dinner, ask, permit", "allow, ask or deny"),
        ("p, role:guest, *, app:dinner, ask, allow, more", "`p, <subject>"),
        ("P, web:*, *, tool:*, call, deny", "`g, <holder>"),
        ("p2, web:*, *, tool:*, call, deny", "`g, <holder>"),
        ("p web:*; *; tool:*; call; deny", "`g, <holder>"),
        ("p, guest, *, app:dinner, ask, allow", "`kind:name`"),
        ("p, public, *, app:dinner, ask, allow", "`*` for everybody"),
        ("p, role:*, *, app:dinner, ask, deny", "a role, or a pattern"),
        ("p, user:*, acme*, app:dinner, ask, allow", "`*` for every tenant"),
        ("p, user:*, *, tool:*_read, call, allow", "at the end only"),
        ('p, user:*, *, "tool:a", call, allow', "no space"),
        ("p, user:*, *, tool:f(x, y), call, allow", "after"),
        ("p, user:*, *, tool:a[, call, allow", "no space"),
        ("g, user:bo, role:staff", "<tenant or *>"),
        ("g, user:*, role:guest, acme", "no wildcard"),
        ("g, user:bo, role:*, acme", "no wildcard"),
        ("g, user:bo, globex::role:staff, acme", "`::`"),
        ("g, role:staff, role:guest, acme\ng, role:guest, role:staff, *", "do not hold each other"),
    ],
)
def test_a_bad_line_is_refused_with_file_and_line_and_what_was_expected(
    policy_file: Path, line: str, expected: str
) -> None:
    policy_file.write_text(f"# a comment\n\n{line}\n")
    last = 3 + line.count("\n")
    with pytest.raises(BadPolicy) as caught:
        CasbinPolicy.from_files(policy_file)
    assert f"{policy_file}, line {last}" in str(caught.value)
    assert expected in str(caught.value)


def test_a_chain_that_casbin_would_not_follow_to_its_end_is_refused(policy_file: Path) -> None:
    chain = [f"g, role:r{n}, role:r{n + 1}, {'acme' if n % 2 else '*'}" for n in range(10)]
    policy_file.write_text("\n".join(chain[:9]))
    assert "acme::role:r9" in asyncio.run(
        CasbinPolicy.from_files(policy_file).grants(Principal.user("ana", "r0", tenant="acme"))
    )
    policy_file.write_text("\n".join(chain))
    with pytest.raises(BadPolicy, match="chain of 10"):
        CasbinPolicy.from_files(policy_file)


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("r = sub, dom, obj, act", "r = sub, obj, act", 7),
        ("p = sub, dom, obj, act, eft", "p = sub, dom, obj, act", 10),
        ("g = _, _, _", "g = _, _", 13),
        ("!some(where (p.eft == deny))", "some(where (p.eft == deny))", 16),
        ("e = some(where (p.eft == allow)) && !some", "e = !some", 16),
        ("keyMatch(r.obj", "regexMatch(r.obj", 19),
        ("keyMatch(r.obj, p.obj) && ", "", 19),
        ("&& (keyMatch", "|| (keyMatch", 19),
        ("m = ", 'm = r.sub == "user:root" || ', 19),
        ("g = _, _, _", "g = _, _, _\ng2 = _, _", None),
        ("[matchers]", "[matches]", None),
        ("r = sub", "r sub", 7),
    ],
)
def test_a_model_that_cannot_be_compiled_is_refused_with_file_and_line(
    tmp_path: Path, policy_file: Path, old: str, new: str, line: int | None
) -> None:
    model = tmp_path / "model.conf"
    text = BUNDLED.read_text()
    assert old in text
    model.write_text(text.replace(old, new, 1))
    with pytest.raises(BadPolicy) as caught:
        CasbinPolicy.from_files(policy_file, model=model)
    assert str(model) in str(caught.value)
    assert line is None or f"line {line}" in str(caught.value)


def test_a_model_without_wildcards_takes_no_policy_with_them(tmp_path: Path, policy_file: Path) -> None:
    model = tmp_path / "model.conf"
    strict = "g(r.sub, p.sub, r.dom) && r.dom == p.dom && r.obj == p.obj && r.act == p.act"
    model.write_text(BUNDLED.read_text().split("m = ")[0] + f"m = {strict}\n")
    for field in ("p, *, acme, app:x, ask", "p, user:a, *, app:x, ask", "p, user:a, acme, app:*, ask"):
        policy_file.write_text(f"{field}, allow")
        with pytest.raises(BadPolicy, match="knows no wildcard"):
            CasbinPolicy.from_files(policy_file, model=model)


@pytest.mark.parametrize("content", [b"p, user:\xff, *, app:x, ask, allow", None])
def test_a_file_that_cannot_be_read_is_refused_by_name(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "policy.csv"
    if content:
        path.write_bytes(content)
    with pytest.raises(BadPolicy, match=r"policy\.csv"):
        CasbinPolicy.from_files(path)
    with pytest.raises(BadPolicy, match=r"policy\.csv"):
        CasbinPolicy.from_files(path, model=path)


def test_the_abandoned_casbin_beside_pycasbin_is_refused(
    tmp_path: Path, policy_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stale = tmp_path / "casbin-1.43.0.dist-info"
    stale.mkdir()
    (stale / "METADATA").write_text("Metadata-Version: 2.1\nName: casbin\nVersion: 1.43.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigurationError, match="abandoned"):
        CasbinPolicy.from_files(policy_file)


# The proof: on generated policies, the compiled copy answers as casbin's enforcer does.

TENANTS = ["acme", "globex"]
DOMAINS = st.sampled_from(["*", *TENANTS])
ROLES = [f"role:r{n}" for n in range(4)]
COLLECTIONS = ["collection:x", "collection:y"]
SUBJECTS = ["*", "user:*", "user:a*", "web:*", "user:ana", *ROLES, *COLLECTIONS]
NODES = ["user:ana", "web:x", *ROLES, *COLLECTIONS]
P_LINES = st.builds(
    "p, {}, {}, {}, {}, {}".format,
    st.sampled_from(SUBJECTS),
    DOMAINS,
    st.sampled_from(["*", "tool:*", "tool:a", "tool:ab", "app:*"]),
    st.sampled_from(["*", "call", "ask"]),
    st.sampled_from(list(Verdict)),
)
G_LINES = st.builds(
    # From an earlier node to a later one only: no circles.
    lambda pair, dom: f"g, {NODES[min(pair)]}, {NODES[max(pair)]}, {dom}",
    st.lists(st.integers(0, len(NODES) - 1), min_size=2, max_size=2, unique=True),
    DOMAINS,
)
POLICIES = st.lists(st.one_of(P_LINES, G_LINES), min_size=1, max_size=14, unique=True)
PRINCIPALS = st.builds(
    Principal,
    st.sampled_from(["user:ana", "user:bo", "web:x"]),
    st.sampled_from(["", *TENANTS]),
    st.frozensets(st.sampled_from(["r0", "r1"]), max_size=2),
)
REQUESTS = st.tuples(st.sampled_from(["call", "ask"]), st.sampled_from(["tool:a", "tool:ab", "tool:", "app:x"]))


@settings(max_examples=300, deadline=None)
@given(POLICIES, PRINCIPALS, REQUESTS)
def test_every_decision_is_the_enforcers(
    tmp_path_factory: pytest.TempPathFactory,
    lines: Sequence[str],
    principal: Principal,
    request_: tuple[str, str],
) -> None:
    path = _written(tmp_path_factory, lines)
    decision = asyncio.run(CasbinPolicy.from_files(path).decide(principal, *request_))
    assert decision.verdict is _enforced(path, principal, *request_)


@settings(max_examples=200, deadline=None)
@given(POLICIES, PRINCIPALS)
def test_the_grants_are_what_the_enforcers_roles_lead_to(
    tmp_path_factory: pytest.TempPathFactory, lines: Sequence[str], principal: Principal
) -> None:
    path = _written(tmp_path_factory, lines)
    held = asyncio.run(CasbinPolicy.from_files(path).grants(principal))
    roles = _enforcer(path, principal).get_implicit_roles_for_user(principal.id, principal.tenant)
    mark = f"{principal.tenant}::" if principal.tenant else ""
    assert held == principal.vouched_grants | {mark + role for role in roles}


def _written(folders: pytest.TempPathFactory, lines: Sequence[str]) -> Path:
    path = folders.getbasetemp() / "generated.csv"
    path.write_text("\n".join(lines))
    return path


def _enforcer(path: Path, principal: Principal, *, ask: str = "ask") -> casbin.Enforcer:
    """Casbin's own reading of the file; a role that was vouched for is one more grouping line."""
    enforcer = casbin.Enforcer(str(BUNDLED))
    enforcer.add_named_domain_matching_func("g", casbin.util.key_match_func)
    enforcer.adapter = casbin.persist.adapters.FileAdapter(str(path))
    enforcer.load_policy()
    for line in enforcer.get_policy():
        line[-1] = ask if line[-1] == "ask" else line[-1]
    for role in principal.roles:
        enforcer.add_grouping_policy(principal.id, f"role:{role}", principal.tenant)
    return enforcer


def _enforced(path: Path, principal: Principal, action: str, resource: str) -> Verdict:
    """Casbin knows two answers: permitted even when `ask` counts as deny, or only when it counts as allow."""

    def permits(ask: str) -> bool:
        request = principal.id, principal.tenant, resource, action
        return bool(_enforcer(path, principal, ask=ask).enforce(*request))

    if permits("deny"):
        return Verdict.ALLOW
    return Verdict.ASK if permits("allow") else Verdict.DENY
