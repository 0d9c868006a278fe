-- What these stores kept before they wrote their revisions down: a database of then, as `sqlite3` dumps it.
BEGIN TRANSACTION;
CREATE TABLE acl_grants (
	grant_key TEXT NOT NULL, 
	acl INTEGER NOT NULL, 
	PRIMARY KEY (grant_key, acl)
)
 WITHOUT ROWID

;
INSERT INTO "acl_grants" VALUES('adcbdb4fed90197add261eebb87834d72d23c452a08c148e',1);
INSERT INTO "acl_grants" VALUES('573a0f059ed3ea7d74f2a7c3eedce3d883749c39c2fff64e',2);
INSERT INTO "acl_grants" VALUES('6c481345c07f68ff71ebe0ab284bdfe638be57b38472094a',2);
INSERT INTO "acl_grants" VALUES('573a0f059ed3ea7d74f2a7c3eedce3d883749c39c2fff64e',3);
CREATE TABLE acls (
	number INTEGER NOT NULL, 
	"key" TEXT NOT NULL, 
	grants TEXT NOT NULL, 
	PRIMARY KEY (number), 
	UNIQUE ("key")
);
INSERT INTO "acls" VALUES(1,'cd1e514b44b286086529f74b22cd9ee1b517ae3f5eb23045','["public"]');
INSERT INTO "acls" VALUES(2,'7ad6eaef256b27363d0513377b16c09e7c9a1420d8ad2c76','["role:staff", "user:ana"]');
INSERT INTO "acls" VALUES(3,'6bf57ddf5586a6b6f3dcdb9ddaca1abe2433356553eb5b3b','["role:staff"]');
CREATE TABLE chunk_documents (
	number INTEGER NOT NULL, 
	"key" TEXT NOT NULL, 
	id TEXT NOT NULL, 
	PRIMARY KEY (number), 
	UNIQUE ("key")
);
INSERT INTO "chunk_documents" VALUES(1,'dd64d1f09ec1785760106fbf10d1eea711fd5c3c53a0f01a','menu');
INSERT INTO "chunk_documents" VALUES(2,'c14de145644b86d2b3ad0cd6669c5b8ed2f856a64f913ec5','rota');
INSERT INTO "chunk_documents" VALUES(3,'4748798b85591521058c7ae021467ecabb7e9684730aba53','notes');
CREATE TABLE chunk_shelves (
	number INTEGER NOT NULL, 
	acl INTEGER NOT NULL, 
	version BIGINT NOT NULL, 
	count INTEGER NOT NULL, 
	length BIGINT NOT NULL, 
	top INTEGER NOT NULL, 
	PRIMARY KEY (number)
);
INSERT INTO "chunk_shelves" VALUES(1,1,1,4,11,4);
INSERT INTO "chunk_shelves" VALUES(2,2,1,4,11,4);
INSERT INTO "chunk_shelves" VALUES(3,3,1,4,11,4);
CREATE TABLE chunk_store (
	number INTEGER NOT NULL, 
	format INTEGER NOT NULL, 
	born TEXT NOT NULL, 
	changes BIGINT NOT NULL, 
	dimension INTEGER, 
	PRIMARY KEY (number)
);
INSERT INTO "chunk_store" VALUES(1,1,'86b6ca9a686e427887117a471f58dab2',1,3);
CREATE TABLE chunk_vectors (
	number INTEGER NOT NULL, 
	acl INTEGER NOT NULL, 
	vector BLOB NOT NULL, 
	PRIMARY KEY (number)
);
INSERT INTO "chunk_vectors" VALUES(1024,1,X'0000803F0000C0BF0000803F');
INSERT INTO "chunk_vectors" VALUES(1025,1,X'0000803F000000BF0000803F');
INSERT INTO "chunk_vectors" VALUES(1026,1,X'0000803F0000003F0000803F');
INSERT INTO "chunk_vectors" VALUES(1027,1,X'0000803F0000C03F0000803F');
INSERT INTO "chunk_vectors" VALUES(2048,2,X'0000803F0000C0BF0000A03F');
INSERT INTO "chunk_vectors" VALUES(2049,2,X'0000803F000000BF0000A03F');
INSERT INTO "chunk_vectors" VALUES(2050,2,X'0000803F0000003F0000A03F');
INSERT INTO "chunk_vectors" VALUES(2051,2,X'0000803F0000C03F0000A03F');
INSERT INTO "chunk_vectors" VALUES(3072,3,X'0000803F0000C0BF0000803F');
INSERT INTO "chunk_vectors" VALUES(3073,3,X'0000803F000000BF0000803F');
INSERT INTO "chunk_vectors" VALUES(3074,3,X'0000803F0000003F0000803F');
INSERT INTO "chunk_vectors" VALUES(3075,3,X'0000803F0000C03F0000803F');
CREATE TABLE chunk_words (
	word TEXT NOT NULL, 
	shelf INTEGER NOT NULL, 
	entries BLOB NOT NULL, 
	PRIMARY KEY (word, shelf)
)
 WITHOUT ROWID

;
INSERT INTO "chunk_words" VALUES('close',1,X'02000100000002000000');
INSERT INTO "chunk_words" VALUES('close',2,X'02000100000002000000');
INSERT INTO "chunk_words" VALUES('close',3,X'02000100000002000000');
INSERT INTO "chunk_words" VALUES('garden',1,X'0100010000000400000002000100000002000000');
INSERT INTO "chunk_words" VALUES('garden',2,X'0100010000000400000002000100000002000000');
INSERT INTO "chunk_words" VALUES('garden',3,X'0100010000000400000002000100000002000000');
INSERT INTO "chunk_words" VALUES('red',1,X'01000100000004000000');
INSERT INTO "chunk_words" VALUES('red',2,X'01000100000004000000');
INSERT INTO "chunk_words" VALUES('red',3,X'01000100000004000000');
INSERT INTO "chunk_words" VALUES('tabl',1,X'0000010000000200000001000100000004000000');
INSERT INTO "chunk_words" VALUES('tabl',2,X'0000010000000200000001000100000004000000');
INSERT INTO "chunk_words" VALUES('tabl',3,X'0000010000000200000001000100000004000000');
INSERT INTO "chunk_words" VALUES('window',1,X'00000100000002000000');
INSERT INTO "chunk_words" VALUES('window',2,X'00000100000002000000');
INSERT INTO "chunk_words" VALUES('window',3,X'00000100000002000000');
INSERT INTO "chunk_words" VALUES('wine',1,X'0100010000000400000003000100000003000000');
INSERT INTO "chunk_words" VALUES('wine',2,X'0100010000000400000003000100000003000000');
INSERT INTO "chunk_words" VALUES('wine',3,X'0100010000000400000003000100000003000000');
INSERT INTO "chunk_words" VALUES('日',1,X'03000100000003000000');
INSERT INTO "chunk_words" VALUES('日',2,X'03000100000003000000');
INSERT INTO "chunk_words" VALUES('日',3,X'03000100000003000000');
INSERT INTO "chunk_words" VALUES('本',1,X'03000100000003000000');
INSERT INTO "chunk_words" VALUES('本',2,X'03000100000003000000');
INSERT INTO "chunk_words" VALUES('本',3,X'03000100000003000000');
CREATE TABLE chunks (
	number INTEGER NOT NULL, 
	"key" TEXT NOT NULL, 
	id TEXT NOT NULL, 
	document INTEGER NOT NULL, 
	start BIGINT NOT NULL, 
	"end" BIGINT NOT NULL, 
	length BIGINT NOT NULL, 
	metadata TEXT NOT NULL, 
	text TEXT NOT NULL, 
	PRIMARY KEY (number), 
	UNIQUE ("key")
);
INSERT INTO "chunks" VALUES(1024,'141ea7e4dede38f72fdf539801fa4cf2a0da4f0801bdb1ba','menu#0',1,0,21,2,'{"year": 2020}','a table by the window');
INSERT INTO "chunks" VALUES(1025,'0329bea1981ccfa125072da7ae0ea395ae214d50837c186e','menu#1',1,0,34,4,'{"year": 2021}','red wine and a table in the garden');
INSERT INTO "chunks" VALUES(1026,'c9c266a7fed3461eb55ec8d3f88ac5c6e8907de659aef0cb','menu#2',1,0,20,2,'{"year": 2022}','the garden is closed');
INSERT INTO "chunks" VALUES(1027,'a3aec237097e5a04b968a6941f0bb81709a919c9d40f533a','menu#3',1,0,16,3,'{"year": 2023}','日本 wine, 0000 and d800');
INSERT INTO "chunks" VALUES(2048,'a956a07b6bc8e6a1ff23e1ad036badb23c2ce200c86c7a9a','notes#0',3,0,21,2,'{"year": 2020}','a table by the window');
INSERT INTO "chunks" VALUES(2049,'eb5c4ae748e81162a3ded826ecec697749256a23315e9cf7','notes#1',3,0,34,4,'{"year": 2021}','red wine and a table in the garden');
INSERT INTO "chunks" VALUES(2050,'ae73614b8388c3047901e283904879d235e4b0c080de1e88','notes#2',3,0,20,2,'{"year": 2022}','the garden is closed');
INSERT INTO "chunks" VALUES(2051,'a7020d0fcb43aebf31f604bf5c0712e933dc4a73840d43cb','notes#3',3,0,16,3,'{"year": 2023}','日本 wine, 0000 and d800');
INSERT INTO "chunks" VALUES(3072,'ac609cc841f01b542fc41a1b6e7cf6edbbf9100568427aa3','rota#0',2,0,21,2,'{"year": 2020}','a table by the window');
INSERT INTO "chunks" VALUES(3073,'597c15c2f1c8d9f7eac3cb66c56bbdd53631e03d44027df2','rota#1',2,0,34,4,'{"year": 2021}','red wine and a table in the garden');
INSERT INTO "chunks" VALUES(3074,'1885dc4ed437d9ffc3abdb6d6c544137c031590c59b06dbf','rota#2',2,0,20,2,'{"year": 2022}','the garden is closed');
INSERT INTO "chunks" VALUES(3075,'cb01ea84eae3c44dcbce8e3b65a7afd615b212b643ebed69','rota#3',2,0,16,3,'{"year": 2023}','日本 wine, 0000 and d800');
CREATE TABLE events (
	run BIGINT NOT NULL, 
	seq INTEGER NOT NULL, 
	kind TEXT NOT NULL, 
	at DOUBLE NOT NULL, 
	label TEXT NOT NULL, 
	body TEXT NOT NULL, 
	previous TEXT NOT NULL, 
	hash TEXT NOT NULL, 
	PRIMARY KEY (run, seq)
);
INSERT INTO "events" VALUES(1,0,'noted',0.0,'','0','4a29943bb0a93815224f4dc1559f138dcb5ce1027b643f2dd3fe4be720fb487a','4e7db95c270609bb7699d5a9121a7833163aa5000fce4e496a0471bc12dc5359');
INSERT INTO "events" VALUES(1,1,'noted',0.0,'','1','4e7db95c270609bb7699d5a9121a7833163aa5000fce4e496a0471bc12dc5359','1f446e811c74be0837790e9c08fae5c676220158712e6ecca37963f23f55cd9e');
CREATE TABLE memories (
	number INTEGER NOT NULL, 
	owner TEXT NOT NULL, 
	id TEXT NOT NULL, 
	text TEXT NOT NULL, 
	label TEXT NOT NULL, 
	PRIMARY KEY (number), 
	UNIQUE (owner, id)
);
INSERT INTO "memories" VALUES(1,'user:ana','1','likes red wine','{"secrecy": [["user:ana"]], "influence": []}');
CREATE TABLE profiles (
	owner TEXT NOT NULL, 
	name TEXT NOT NULL, 
	language TEXT NOT NULL, 
	preferences TEXT NOT NULL, 
	PRIMARY KEY (owner)
);
INSERT INTO "profiles" VALUES('user:ana','Ana','','[]');
CREATE TABLE runs (
	number INTEGER NOT NULL, 
	run TEXT NOT NULL, 
	owner TEXT NOT NULL, 
	status TEXT NOT NULL, 
	length INTEGER NOT NULL, 
	head TEXT NOT NULL, 
	PRIMARY KEY (number), 
	UNIQUE (run)
);
INSERT INTO "runs" VALUES(1,'r','user:ana','running',2,'1f446e811c74be0837790e9c08fae5c676220158712e6ecca37963f23f55cd9e');
CREATE INDEX ix_acl_grants_acl ON acl_grants (acl);
CREATE INDEX ix_chunk_shelves_acl ON chunk_shelves (acl);
CREATE INDEX ix_chunk_vectors_acl ON chunk_vectors (acl);
CREATE INDEX ix_chunks_document ON chunks (document);
CREATE INDEX ix_runs_status ON runs (status);
COMMIT;
