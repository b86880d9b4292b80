-- principals_of expands principals by the groups they are in, nested to any depth. Groups of an identity that
-- was not heard of for too long count for nothing.
create or replace function $S.principals_of(principals text[]) returns text[] language sql stable as $f$
  with recursive fresh as (
    select name from $S.identity where max_age is null or synced_at > now() - max_age
  ), closure (principal) as (
    select p from unnest(coalesce(principals, '{}') || '{public}') p
    union
    select m.name from closure c join $S.member m on m.members @> array[c.principal] where m.identity in (select name from fresh)
  ) select array_agg(distinct principal) from closure
$f$;

-- fresh_identities returns the identities whose groups are known.
create or replace function $S.fresh_identities() returns text[] language sql stable as $f$
  select coalesce(array_agg(name), '{}') from $S.identity where max_age is null or synced_at > now() - max_age
$f$;

-- occurrences reads from ts_rank of one word how often it occurs: ts_rank is 0.1 × (1 + 1/4 + … + 1/n²) × 6/π².
create or replace function $S.occurrences(rank real) returns double precision language sql immutable parallel safe as $f$
  select case when rank <= 0 then 0 else greatest(1, round((1 / greatest(1.644934066848 - rank * 16.44934066848, 0.004) - 0.5)::numeric))::double precision end
$f$;

-- lexemes returns what is looked for of a question: the words that texts are taken apart into as well, letters and
-- digits of ASCII and whatever is none, as the language's configuration spells them.
create or replace function $S.lexemes(question text) returns setof text language sql stable as $f$
  select distinct l from regexp_split_to_table(question, '[\x01-\x2f\x3a-\x40\x5b-\x60\x7b-\x7f]+') w,
    unnest(tsvector_to_array(to_tsvector((select value from $S.setting where name = 'language')::regconfig, w))) l
$f$;

-- search returns the chunks that answer the question best, among those that the principals may see: words by
-- BM25, vectors by cosine, each scaled to 1 for its best, joined by the weight of the model: ranks alone would let
-- a weak model overturn a clear match of words. embedding is the question's vector in the active space,
-- null = words only. All of it reads one snapshot.
create or replace function $S.search(question text, embedding text default null, principals text[] default '{}',
    k int default 10, filter jsonb default null, tenant text default '', streams text[] default null, vector_weight real default null)
returns table (stream text, id text, ord int, title text, uri text, mime text, page int, heading text[], start_at int, end_at int,
  body text, score double precision, lexical_rank int, vector_rank int, similarity double precision, metadata jsonb)
language plpgsql stable set search_path = pg_catalog, $V set hnsw.iterative_scan = 'relaxed_order' set hnsw.ef_search = 100 as $f$
#variable_conflict use_column
declare
  pool constant int := greatest(50, 5 * least(k, 200));
  closure constant text[] := $S.principals_of(principals);
  fresh constant text[] := $S.fresh_identities();
  seen constant text := 'd.state = ''live'' and d.allow && $1 and not d.deny && $1 and d.deny_of <@ $2'
    ' and d.tenant = $3 and ($4 is null or d.meta @> $4) and ($5 is null or d.stream = any($5))';
  words tsquery[]; idfs double precision[]; any_word tsquery; mean real; weight real; space int; dims int;
  lexical text := 'select null::bigint as doc_pk, null::int as ord, null::int as place, null::double precision as part where false';
  vectors text := 'select null::bigint as doc_pk, null::int as ord, null::int as place, null::double precision as similarity, null::double precision as part where false';
begin
  if k is null or k < 1 then return; end if;
  select mean_tokens into mean from $S.word_count;
  with q as (
    select quote_literal(lexeme)::tsquery as word, coalesce(w.contents, 1) as contents,
      ln(1 + (greatest(n.contents, coalesce(w.contents, 1)) - coalesce(w.contents, 1) + 0.5) / (coalesce(w.contents, 1) + 0.5)) as idf
    from $S.lexemes(question) lexeme
    left join $S.word w using (lexeme), (select coalesce(max(contents), 0) as contents from $S.word_count) n
  ), o as (
    -- Rare words find the candidates; words that are everywhere only help to rank them.
    select *, row_number() over (order by contents, word::text) as n, sum(contents) over (order by contents, word::text) as found from q
  ) select array_agg(word order by n), array_agg(idf order by n),
      (string_agg(word::text, ' | ' order by n) filter (where n = 1 or found <= 20000))::tsquery
    into words, idfs, any_word from o where n <= 64;
  if any_word is not null then
    lexical := 'select doc_pk, ord, row_number() over (order by bm25 desc, doc_pk, ord)::int as place, bm25 / max(bm25) over () as part from (
      select c.doc_pk, c.ord, (select sum(idf * tf * 2.2 / (tf + 1.2 * (0.25 + 0.75 * x.tokens / $9)))
          from (select idf, $S.occurrences(ts_rank(x.tsv, word)) as tf from unnest($6, $7) q (word, idf)) t where tf > 0) as bm25
      from $S.content x join $S.chunk c on c.hash = x.hash join $S.doc d on d.pk = c.doc_pk
      where x.tsv @@ $8 and ' || seen || ' order by bm25 desc, c.doc_pk, c.ord limit ' || pool || ') l';
  end if;
  select s.id, s.dims, coalesce(vector_weight, s.weight) into space, dims, weight from $S.spec s where s.state = 'active';
  if embedding is not null and space is not null and weight > 0 then
    vectors := format('select doc_pk, ord, row_number() over (order by distance, doc_pk, ord)::int as place, 1 - distance as similarity,
        case when max(distance) over () > min(distance) over () then (max(distance) over () - distance) / (max(distance) over () - min(distance) over ()) else 1 end as part from (
      select c.doc_pk, c.ord, e.e <=> $10::halfvec(%s) as distance
      from $S.emb_%s e join $S.chunk c on c.hash = e.hash join $S.doc d on d.pk = c.doc_pk
      where %s order by e.e <=> $10::halfvec(%s) limit %s) v', dims, space, seen, dims, pool);
  end if;
  return query execute 'with l as (' || lexical || '), v as (' || vectors || '), f as (
      select coalesce(l.doc_pk, v.doc_pk) as doc_pk, coalesce(l.ord, v.ord) as ord,
        (coalesce(l.part, 0) + $11 * coalesce(v.part, 0))::double precision as score, l.place as lplace, v.place as vplace, v.similarity
      from l full join v on l.doc_pk = v.doc_pk and l.ord = v.ord order by score desc, 1, 2 limit $12)
    select d.stream, d.id, f.ord, d.title, d.uri, d.mime, c.page, c.heading, c.start_at, c.end_at, x.body, f.score, f.lplace, f.vplace, f.similarity, d.meta
    from f join $S.doc d on d.pk = f.doc_pk join $S.chunk c on c.doc_pk = f.doc_pk and c.ord = f.ord join $S.content x on x.hash = c.hash
    order by f.score desc, f.doc_pk, f.ord'
    using closure, fresh, tenant, filter, streams, words, idfs, any_word, greatest(coalesce(mean, 1), 1), embedding, weight, k;
end
$f$;

-- document returns a document's chunks in order, if the principals may see it.
create or replace function $S.document(stream text, id text, principals text[] default '{}', tenant text default '')
returns table (ord int, title text, uri text, mime text, page int, heading text[], start_at int, end_at int, body text, metadata jsonb)
language sql stable as $f$
  select c.ord, d.title, d.uri, d.mime, c.page, c.heading, c.start_at, c.end_at, x.body, d.meta
  from $S.doc d join $S.chunk c on c.doc_pk = d.pk join $S.content x on x.hash = c.hash
  where d.stream = document.stream and d.id = document.id and d.tenant = document.tenant and d.state = 'live'
    and d.allow && $S.principals_of(principals) and not d.deny && $S.principals_of(principals) and d.deny_of <@ $S.fresh_identities()
  order by c.ord
$f$;
