package hardvalues

// value is one hard value in a column of its own.
type value struct {
	typ     string // of the column, as CREATE TABLE takes it
	literal string // SQL expression; "" = the column is generated
	show    string // for the document where the literal is long
	cast    string // what Postgres is to compare it as, when not as it is
	column  string // its name; v and its number when empty
	note    string // for the document
	engines string // engines that read something else, with what: a known limit of theirs
	absent  bool   // the lake has no such column
}

// family is a table: its values meet the same code, and no other family's.
type family struct {
	name   string // of the table in the lake
	table  string // of the table at the source, quoted where it must be
	key    string // name of the key column, quoted where it must be
	values []value
}

const moreTypes = `
CREATE TYPE mood AS ENUM ('sad', 'so so', 'ünïcode "q"');
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE DOMAIN amount AS numeric(12,2);
CREATE DOMAIN years AS int[];
CREATE TYPE pair AS (a int, b text);
`

// long is text that does not compress, so that it is stored out of line.
const long = `(SELECT string_agg(md5(i::text), '') FROM generate_series(1, 32768) i)`

const asText = "its text, as Postgres prints it"

var families = []family{
	{name: "integers", values: []value{
		{typ: "boolean", literal: "true"},
		{typ: "boolean", literal: "false"},
		{typ: "boolean", literal: "NULL"},
		{typ: "smallint", literal: "-32768"},
		{typ: "integer", literal: "-2147483648"},
		{typ: "bigint", literal: "-9223372036854775808"},
		{typ: "bigint", literal: "9223372036854775807"},
		{typ: "oid", literal: "4294967295", note: asText},
	}},
	{name: "floats", values: []value{
		{typ: "real", literal: "'-0'"},
		{typ: "real", literal: "'NaN'"},
		{typ: "real", literal: "'-Infinity'"},
		{typ: "real", literal: "'1.4e-45'"},
		{typ: "real", literal: "0.1"},
		{typ: "double precision", literal: "'-0'"},
		{typ: "double precision", literal: "'NaN'"},
		{typ: "double precision", literal: "'Infinity'"},
		{typ: "double precision", literal: "'5e-324'"},
		{typ: "double precision", literal: "'1.7976931348623157e308'"},
	}},
	{name: "numerics", values: []value{
		{typ: "numeric(38,10)", literal: "9999999999999999999999999999.9999999999"},
		{typ: "numeric(38,10)", literal: "-9999999999999999999999999999.9999999999"},
		{typ: "numeric(38,10)", literal: "0.0000000001"},
		{typ: "numeric(38,0)", literal: "99999999999999999999999999999999999999"},
		{typ: "numeric(38,38)", literal: "0.00000000000000000000000000000000000001"},
		{typ: "numeric(10,2)", literal: "-0.01"},
		{typ: "numeric(10,2)", literal: "'NaN'", note: "an Iceberg decimal has no NaN; `numeric` without precision takes it"},
		{typ: "numeric(50,20)", literal: "123456789012345678901234567890.12345678901234567890", note: "more than 38 digits: exact digits as text"},
		{typ: "numeric(4,-2)", literal: "123456", note: "a negative scale: exact digits as text"},
		{typ: "numeric(3,5)", literal: "-0.00123"},
		{typ: "numeric", literal: "1e-20", note: "exact digits as text: adr/0005"},
		{typ: "numeric", literal: "0.00"},
		{typ: "numeric", literal: "('1' || repeat('0', 100000) || '.00' || repeat('7', 10000))::numeric", show: "110,000 digits"},
		{typ: "numeric", literal: "'NaN'"},
		{typ: "numeric", literal: "'Infinity'"},
		{typ: "numeric", literal: "'-Infinity'"},
	}},
	{name: "texts", values: []value{
		{typ: "text", literal: "''"},
		{typ: "text", literal: "'NULL'"},
		{typ: "text", literal: `E'q"\\ \n\t\r\b\u0001\u007f\u2028😀é e\u0301 \\u0041'`, show: "quotes, control characters, emoji"},
		{typ: "text", literal: "'__debezium_unavailable_value'"},
		{typ: "text", literal: long, show: "1 MB, stored out of line"},
		{typ: "text", literal: "repeat('x', 17 * 1048576)", show: "17 MB", note: "a record takes at most 16 MiB"},
		{typ: "varchar(5)", literal: "'  vc '"},
		{typ: "char(5)", literal: "'ab'", note: "with its padding"},
		{typ: `"char"`, literal: "'c'"},
		{typ: "name", literal: "'a name'"},
		{typ: "mood", literal: `'ünïcode "q"'`, show: "an enum's label"},
		{typ: "xml", literal: "NULL", note: "the test's server is built without XML: NULL only"},
	}},
	{name: "binaries", values: []value{
		{typ: "bytea", literal: `'\x'`},
		{typ: "bytea", literal: `'\x00'`},
		{typ: "bytea", literal: `'\x00ff005c0a22'`},
		{typ: "bytea", literal: "decode(" + long + ", 'hex')", show: "512 kB, stored out of line"},
		{typ: "bit(5)", literal: "B'10101'", note: asText},
		{typ: "bit varying", literal: "B''", note: asText},
	}},
	{name: "dates", values: []value{
		{typ: "date", literal: "'2024-02-29'"},
		{typ: "date", literal: "'1969-12-31'"},
		{typ: "date", literal: "'0001-01-01'"},
		{typ: "date", literal: "'0044-03-15 BC'"},
		{typ: "date", literal: "'4713-11-24 BC'"},
		{typ: "date", literal: "'10000-01-01'"},
		{typ: "date", literal: "'5874897-12-31'"},
		{typ: "date", literal: "'infinity'", note: "Iceberg has no infinity: adr/0004"},
		{typ: "date", literal: "'-infinity'", note: "Iceberg has no infinity: adr/0004"},
	}},
	{name: "timestamps", values: []value{
		{typ: "timestamp", literal: "'1969-12-31 23:59:59.999999'"},
		{typ: "timestamp", literal: "'0001-01-01'"},
		{typ: "timestamp", literal: "'4713-11-24 00:00:00 BC'"},
		{typ: "timestamp", literal: "'9999-12-31 23:59:59.999999'"},
		{typ: "timestamp", literal: "'10000-01-01'"},
		{typ: "timestamp", literal: "'294246-12-31 23:59:59.999999'"},
		{typ: "timestamp", literal: "'294276-12-31 23:59:59.999999'", note: "µs since 1970 end in the year 294247"},
		{typ: "timestamp", literal: "'infinity'", note: "Iceberg has no infinity: adr/0004"},
		{typ: "timestamp", literal: "'-infinity'", note: "Iceberg has no infinity: adr/0004"},
	}},
	{name: "instants", values: []value{
		{typ: "timestamptz", literal: "'1969-12-31 23:59:59.999999+00'"},
		{typ: "timestamptz", literal: "'1883-11-18 12:03:58-07:52:58'"},
		{typ: "timestamptz", literal: "'4713-11-24 00:00:00+00 BC'"},
		{typ: "timestamptz", literal: "'10000-01-01 00:00:00+00'"},
		{typ: "timestamptz", literal: "'294276-12-31 23:59:59.999999+00'", note: "µs since 1970 end in the year 294247"},
		{typ: "timestamptz", literal: "'infinity'", note: "Iceberg has no infinity: adr/0004"},
		{typ: "timestamptz", literal: "'-infinity'", note: "Iceberg has no infinity: adr/0004"},
	}},
	{name: "times", values: []value{
		{typ: "time", literal: "'00:00'", note: "Spark refuses a table that has a `time`: text: adr/0003"},
		{typ: "time", literal: "'23:59:59.999999'"},
		{typ: "time", literal: "'24:00:00'"},
		{typ: "timetz", literal: "'04:05:06.789+02:30'", note: asText},
		{typ: "interval", literal: "'1 year -2 mons 3 days -04:05:06.789'", note: asText},
		{typ: "interval", literal: "'-178000000 years'"},
		{typ: "interval", literal: "'infinity'"},
	}},
	{name: "documents", values: []value{
		{typ: "jsonb", literal: `'{"ü": "\u00e9😀\"\\\n\u0001", "a": [1, null, true, {}]}'`},
		{typ: "jsonb", literal: `'[1.10, 1e400, -0.0, 123456789012345678901234567890.123456789]'`, note: "numbers keep all their digits"},
		{typ: "jsonb", literal: "'null'", note: "the JSON value null, not NULL"},
		{typ: "jsonb", literal: `'"text"'`},
		{typ: "jsonb", literal: "NULL"},
		{typ: "jsonb", literal: "jsonb_build_object('t', " + long + ")", show: "1 MB, stored out of line"},
		{typ: "json", cast: "text", literal: `E'{ "b" :1,\n\t"a": [1, 2.50] }'`, note: "its text, with the white space"},
		{typ: "json", cast: "text", literal: `'{"a": 1, "a": 2}'`},
		{typ: "json", cast: "text", literal: `(repeat('[', 500) || repeat(']', 500))::json`, show: "500 arrays in each other"},
	}},
	{name: "arrays", values: []value{
		{typ: "integer[]", literal: "'{1,NULL,-3}'"},
		{typ: "integer[]", literal: "'{}'"},
		{typ: "integer[]", literal: "NULL"},
		{typ: "integer[]", literal: "'{{1,2},{3,4}}'", note: "lists of one dimension only"},
		{typ: "integer[]", literal: "'[0:1]={1,2}'", note: "a list has no lower bound"},
		{typ: "bigint[]", literal: "(SELECT array_agg(i::bigint * 1000003) FROM generate_series(1, 20000) i)", show: "20,000 elements, stored out of line"},
		{typ: "boolean[]", literal: "'{t,f,NULL}'"},
		{typ: "text[]", literal: `ARRAY['a', '', 'NULL', NULL, 'q"\,{}', ' x ']`},
		{typ: "mood[]", literal: "'{sad}'"},
		{typ: "uuid[]", literal: "'{00112233-4455-6677-8899-aabbccddeeff,NULL}'"},
		{typ: "bytea[]", literal: `ARRAY['\x0022'::bytea, '\x']`},
		{typ: "jsonb[]", literal: `ARRAY['{"a": "b"}'::jsonb, 'null', NULL]`},
		{typ: "double precision[]", literal: "'{NaN,-0,-Infinity,NULL}'"},
		{typ: "numeric(10,2)[]", literal: "'{1.5,-2,NULL}'"},
		{typ: "numeric[]", literal: "'{1e-20,NaN,Infinity}'"},
		{typ: "date[]", literal: "'{0044-03-15 BC,9999-12-31}'"},
		{typ: "timestamptz[]", literal: "'{1969-12-31 23:59:59.999999+00,NULL}'"},
		{typ: "timestamptz[]", literal: "'{2000-01-01 00:00:00+00,infinity}'", note: "Iceberg has no infinity: adr/0004"},
		{typ: "years", literal: "'{2024}'", show: "a domain over integer[]"},
	}},
	{name: "others", values: []value{
		{typ: "uuid", literal: "'00112233-4455-6677-8899-AABBCCDDEEFF'"},
		{typ: "inet", literal: "'192.168.0.1/24'", note: asText},
		{typ: "inet", literal: "'::1'", note: asText},
		{typ: "cidr", literal: "'10.0.0.0/8'", note: asText},
		{typ: "macaddr", literal: "'08:00:2b:01:02:03'", note: asText},
		{typ: "money", literal: "'-1234567.50'", note: asText + ", in the server's currency"},
		{typ: "positive", literal: "7", show: "a domain over integer"},
		{typ: "amount", literal: "-12.30", show: "a domain over numeric(12,2)"},
		{typ: "pair", literal: `ROW(NULL, 'a "b", (c)')`, show: "a composite type", note: asText},
		{typ: "int4range", literal: "'[1,5)'", note: asText},
		{typ: "tstzrange", literal: "'[2024-01-01 00:00:00+00,infinity)'", note: asText},
		{typ: "int4multirange", literal: "'{[1,3),[5,8)}'", note: asText},
		{typ: "tsvector", literal: "'a fat cat'", note: asText},
		{typ: "tsquery", literal: "'fat & (rat | cat)'", note: asText},
		{typ: "point", literal: "'(1.5,-2)'", note: asText},
		{typ: "pg_lsn", literal: "'16/B374D848'", note: asText},
		{typ: "pair[]", literal: `ARRAY[ROW(1, 'x')::pair, NULL]`, cast: "text[]", note: "a list of their texts"},
		{typ: "box[]", literal: "'{(1,1),(0,0);(2,2),(1,1)}'", note: asText},
	}},
	{name: "names", table: `"Ünï.Cödé ""T"""`, key: `"The.Key"`, values: []value{
		{typ: "integer", literal: "1", column: "a.dot"},
		{typ: "integer", literal: "2", column: "Capital"},
		{typ: "integer", literal: "4", column: "spaces in it"},
		{typ: "integer", literal: "5", column: "größe 😀"},
		{typ: "integer", literal: "6", column: `quo"te's`},
		{typ: "integer", literal: "7", column: "_op"},
		{typ: "integer", literal: "8", column: "select"},
		{typ: "integer GENERATED ALWAYS AS (touched + 1) STORED", column: "stored", note: "PostgreSQL 18 publishes it"},
		{typ: "integer GENERATED ALWAYS AS (touched + 1) VIRTUAL", column: "virtual", note: "PostgreSQL publishes no virtual column", absent: true},
	}},
}
