create schema if not exists $S;

create table if not exists $S.setting (name text primary key, value text not null);

-- A space of vectors; its vectors are in table emb_<id>, by the hash of their text: in its row, not beside it, as far
-- as a page holds it. They go with their text; a key for each of them would cost a third of their time.
create table if not exists $S.spec (
  id int generated always as identity primary key,
  fingerprint bytea not null unique,
  provider text not null, model text not null, revision text not null, dims int not null,
  document_prefix text not null, query_prefix text not null, weight real not null,
  state text not null check (state in ('building', 'active', 'retired')),
  changed_at timestamptz not null default now());
create unique index if not exists spec_active on $S.spec (state) where state = 'active';

-- allow null = nobody knows who may see it, so nobody sees it. deny_of: identities whose groups deny names.
create table if not exists $S.doc (
  pk bigint generated always as identity primary key,
  key bytea not null unique,
  tenant text not null, stream text not null, id text not null, part int not null,
  version bytea not null,
  state text not null check (state in ('stub', 'live', 'deleted')),
  content_sha bytea, chunker bytea,
  title text, uri text, mime text, meta jsonb, fields jsonb,
  allow text[], deny text[] not null default '{}', deny_of text[] not null default '{}',
  acl_own boolean not null default false, acl_version bytea not null default '', acl_part int,
  problem text,
  changed_at timestamptz not null default now()) with (fillfactor = 85);
create index if not exists doc_allow on $S.doc using gin (allow);
create index if not exists doc_stream on $S.doc (stream, part);

-- Text by its hash: the same text of many documents is stored and embedded once. head is embedded before
-- body, whole in place of both. Nobody may read it but through chunk and doc, which know who may.
create table if not exists $S.content (
  hash bytea primary key,
  head text not null, body text not null, whole text,
  tokens int not null,
  tsv tsvector not null,
  created_at timestamptz not null default now()) with (toast_tuple_target = 8160);
create index if not exists content_tsv on $S.content using gin (tsv);

create table if not exists $S.chunk (
  doc_pk bigint not null references $S.doc on delete cascade,
  ord int not null,
  hash bytea not null references $S.content,
  page int not null, start_at int not null, end_at int not null, heading text[] not null,
  primary key (doc_pk, ord));
create index if not exists chunk_hash on $S.chunk (hash);

-- In how many contents a word occurs, as of the last count.
create table if not exists $S.word (lexeme text primary key, contents bigint not null);
create table if not exists $S.word_count (one boolean primary key default true check (one),
  contents bigint not null, mean_tokens real not null, counted_at timestamptz not null default now());

create table if not exists $S.identity (name text primary key, synced_at timestamptz not null, max_age interval);
create table if not exists $S.member (
  identity text not null, name text not null, version bytea not null, part int not null, members text[] not null,
  primary key (identity, name));
create index if not exists member_members on $S.member using gin (members);

create table if not exists $S.mark (
  owner text not null, topic text not null, part int not null,
  next bigint not null, mark jsonb not null, changed_at timestamptz not null default now(),
  primary key (owner, topic, part));

create table if not exists $S.usage (
  day date not null, spec int not null, calls bigint not null, inputs bigint not null, tokens bigint not null, reused bigint not null,
  primary key (day, spec));
