-- The tables of the workloads. W1 is orders_wide: 24 columns, about 750 bytes a
-- row. W2 is taxi_trips: 12 narrow columns, about 105 bytes a row. W3 changes
-- orders_wide. Run by load.sh.
DROP TABLE IF EXISTS orders_wide, taxi_trips, w3_progress, w3_commits CASCADE;
CREATE TABLE orders_wide (
  id             bigint PRIMARY KEY,
  customer_id    bigint        NOT NULL,
  product_id     int           NOT NULL,
  warehouse_id   int,
  quantity       int           NOT NULL,
  unit_price     numeric(18,4) NOT NULL,
  discount       numeric(18,4),
  total          numeric(18,4) NOT NULL,
  tax_rate       double precision,
  currency       text          NOT NULL,
  status         text          NOT NULL,
  channel        text,
  email          text,
  ship_name      text,
  ship_address   text,
  ship_country   text,
  note           text,
  created_at     timestamptz   NOT NULL,
  shipped_at     timestamptz,
  order_date     date          NOT NULL,
  is_gift        bool          NOT NULL,
  order_uuid     uuid          NOT NULL,
  attrs          jsonb         NOT NULL,
  updated_at     timestamptz   NOT NULL  -- wall clock of the statement that wrote the row: freshness is measured from it
);
CREATE TABLE taxi_trips (
  trip_id         bigint PRIMARY KEY,
  vendor_id       int            NOT NULL,
  pickup_at       timestamptz    NOT NULL,
  dropoff_at      timestamptz    NOT NULL,
  passenger_count int,
  trip_distance   double precision,
  pu_location     int,
  do_location     int,
  payment_type    int,
  fare_amount     numeric(10,2),
  tip_amount      numeric(10,2),
  total_amount    numeric(10,2)
);
CREATE TABLE w3_progress (run_id text, worker int, txns bigint, ins bigint, upd bigint, del bigint, reins bigint,
                          started timestamptz, finished timestamptz, PRIMARY KEY (run_id, worker));
-- Of a run at a fixed rate: each transaction's log address and time just before its commit. Unlogged: it adds nothing to the log.
CREATE UNLOGGED TABLE w3_commits (run_id text, lsn pg_lsn, at timestamptz);

-- h is a 63-bit hash of (key, salt): the same on every version, plan and order of rows.
CREATE OR REPLACE FUNCTION h(k bigint, salt bigint) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT hashint8extended($1, $2) & 9223372036854775807 $$;

-- word_pool is 1.5 KiB of words, so that texts compress like texts and not like digests.
CREATE OR REPLACE FUNCTION word_pool(seed bigint) RETURNS text LANGUAGE sql IMMUTABLE AS $$
  SELECT substr(string_agg((ARRAY['order','late','customer','please','deliver','before','noon','gift','wrap','fragile','blue','red',
   'return','refund','address','changed','call','gate','code','left','with','neighbour','second','floor','door','bell','broken','parcel',
   'invoice','company','tax','number','urgent','weekend','only','no','signature','required','cold','chain','keep','dry','store','pickup',
   'express','standard','voucher','applied','price','match','bundle','spare','part','warranty','claim','photo','attached','agent','note',
   'follow','up','done','pending','review'])[1 + (h(i, $1) % 64)::int], ' ' ORDER BY i), 1, 1536)
  FROM generate_series(1, 400) i $$;
