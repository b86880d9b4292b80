-- W1: rows first .. first+n-1 of orders_wide. load.sh wide N
\set ON_ERROR_STOP on
SET synchronous_commit = off;
SELECT word_pool(:seed) AS pool \gset
INSERT INTO orders_wide
SELECT i, 1 + h1 % 250000, (1 + h2 % 20000)::int, CASE WHEN h3 % 20 = 0 THEN NULL ELSE (h3 % 40)::int END,
  (1 + h4 % 12)::int,
  ((h5 % 9999999) + 1)::numeric(18,4) / 10000 * 10,
  CASE WHEN h6 % 3 = 0 THEN NULL ELSE ((h6 % 500000)::numeric / 10000)::numeric(18,4) END,
  (((h5 % 9999999) + 1)::numeric / 1000 * (1 + h4 % 12))::numeric(18,4),
  (h7 % 2500)::float8 / 10000,
  (ARRAY['EUR','USD','GBP','PLN','SEK','CHF','JPY','CAD'])[1 + h7 % 8],
  (ARRAY['new','paid','packed','shipped','delivered','returned','cancelled','on_hold'])[1 + h8 % 8],
  (ARRAY['web','app','store','phone',NULL])[1 + h9 % 5],
  'user' || (1 + h1 % 250000) || '@' || (ARRAY['example.com','example.org','mail.example.net'])[1 + h2 % 3],
  initcap(substr(pool, (1 + h3 % 1400)::int, 8 + (h4 % 14)::int)),
  (1 + h5 % 400) || ' ' || substr(pool, (1 + h6 % 1400)::int, 24 + (h7 % 50)::int),
  (ARRAY['DE','US','GB','PL','SE','CH','JP','CA','FR','IT'])[1 + h8 % 10],
  CASE WHEN h9 % 10 = 0 THEN NULL ELSE substr(pool, (1 + h9 % 900)::int, (h2 % 600)::int) END,
  timestamptz '2024-01-01 00:00:00+00' + ((h1 % 63072000) || ' seconds')::interval + ((h2 % 1000000) || ' microseconds')::interval,
  CASE WHEN h3 % 10 < 3 THEN NULL ELSE timestamptz '2024-01-03 00:00:00+00' + ((h4 % 63072000) || ' seconds')::interval END,
  (date '2024-01-01' + (h1 % 730)::int), h6 % 17 = 0,
  (lpad(to_hex(h7), 16, '0') || lpad(to_hex(h8), 16, '0'))::uuid,
  jsonb_build_object('ip', '10.' || h1 % 256 || '.' || h2 % 256 || '.' || h3 % 256, 'utm', substr(pool, (1 + h4 % 1400)::int, 20),
    'score', (h5 % 1000)::int, 'tags', jsonb_build_array(substr(pool, (1 + h6 % 1400)::int, 8), substr(pool, (1 + h7 % 1400)::int, 8)),
    'device', jsonb_build_object('os', (ARRAY['ios','android','windows','linux'])[1 + h8 % 4], 'ver', h9 % 40, 'beta', h1 % 2 = 0),
    'session', to_hex(h2)),
  clock_timestamp()
FROM (SELECT i, pool, h(i, 11+s) h1, h(i, 12+s) h2, h(i, 13+s) h3, h(i, 14+s) h4, h(i, 15+s) h5, h(i, 16+s) h6, h(i, 17+s) h7, h(i, 18+s) h8, h(i, 19+s) h9
      FROM generate_series(:first::bigint, :first::bigint + :n::bigint - 1) i, (SELECT :'pool'::text pool, 100 * :seed::bigint s) p
      OFFSET 0) x;
ANALYZE orders_wide;
