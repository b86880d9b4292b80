"""Fingerprints of tables, as an engine reads them.

Reads a request as JSON from standard input and prints a list with one
fingerprint per table: {"rows", "columns": {name: {"kind", "hash", "nulls"}},
"row_hash"}. The engine delivers values; the canonical texts (listed in
canonical.go) and their hashes are made by one DuckDB for all engines.
"""

import decimal
import itertools
import json
import os
import sys
import tempfile
import threading

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

MOD = 1 << 64
numbers = itertools.count()


def quote(name):
    return '"' + name.replace('"', '""') + '"'


def literal(text):
    return "'" + text.replace("'", "''") + "'"


# ---- canonical texts ------------------------------------------------------


def plain(text):
    """A number without exponent and without zeros that say nothing."""
    if text.lstrip("+-").lower() in ("nan", "inf", "infinity"):
        word = text.lstrip("+-").lower()
        return "NaN" if word == "nan" else ("-Infinity" if text.startswith("-") else "Infinity")
    digits = format(decimal.Decimal(text), "f")
    if "." in digits:
        digits = digits.rstrip("0").rstrip(".")
    sign, digits = ("-", digits[1:]) if digits.startswith("-") else ("", digits)
    digits = digits.lstrip("0") or "0"
    if digits.startswith("."):
        digits = "0" + digits
    return digits if digits == "0" else sign + digits


class Number(str):
    """The digits of a JSON number as they were written."""


def canonical_json(value):
    if value is None:
        return "n"
    if value is True:
        return "t"
    if value is False:
        return "f"
    if isinstance(value, Number):
        return "#" + plain(value)
    if isinstance(value, str):
        return f"s{len(value.encode())}:{value}"
    if isinstance(value, list):
        return "[" + "".join(canonical_json(v) + "," for v in value) + "]"
    return "{" + "".join(canonical_json(k) + "=" + canonical_json(value[k]) + "," for k in sorted(value)) + "}"


def json_text(text):
    return canonical_json(json.loads(text, parse_int=Number, parse_float=Number, parse_constant=Number))


def float_bits(column):
    """The IEEE 754 bits of doubles, with one NaN."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    return pc.if_else(pc.is_nan(column), pa.scalar(0x7FF8000000000000, pa.uint64()), column.view(pa.uint64()))


def each(function):
    def run(column):
        return pa.array([None if v is None else function(v) for v in column.to_pylist()], pa.string())

    return run


def scalar_text(x, kind, hint):
    """The SQL of the canonical text of x, of DuckDB's type kind, that Postgres calls hint; and its kind."""
    base = kind.split("(")[0]
    if base == "BOOLEAN":
        return f"CASE WHEN {x} THEN 't' ELSE 'f' END", "bool"
    if base in ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"):
        return f"{x}::VARCHAR", hint if hint in ("time", "numeric") else "int"
    if base in ("FLOAT", "DOUBLE"):
        return f"format('{{:016x}}', float_bits({x}::DOUBLE))", "float"
    if base == "DECIMAL":
        if kind.endswith(",0)"):
            return f"{x}::VARCHAR", "numeric"
        digits = f"rtrim(rtrim({x}::VARCHAR, '0'), '.')"
        if "(" in kind and kind[kind.index("(") + 1 : -1].split(",")[0] == kind[:-1].split(",")[1].strip():
            digits = f"number_text({x}::VARCHAR)"  # all digits behind the point: DuckDB writes .5
        return digits, "numeric"
    if base == "BLOB":
        return f"lower(hex({x}))", "bytes"
    if base == "UUID":
        return f"{x}::VARCHAR", "uuid"
    if base == "DATE":
        return f"CASE WHEN isinf({x}) THEN {x}::VARCHAR ELSE date_diff('day', DATE '1970-01-01', {x})::VARCHAR END", "date"
    if base == "TIME":
        return f"epoch_us({x})::VARCHAR", "time"
    if base in ("TIMESTAMP", "TIMESTAMP WITH TIME ZONE"):
        return f"CASE WHEN isinf({x}) THEN {x}::VARCHAR ELSE epoch_us({x})::VARCHAR END", "timestamp"
    if base in ("VARCHAR", "JSON"):
        x = f"{x}::VARCHAR" if base == "JSON" else x
        if hint == "json":
            return f"json_text({x})", "json"
        if hint == "numeric":
            return f"number_text({x})", "numeric"
        if hint == "uuid":
            return f"lower({x})", "uuid"
        if hint == "time":
            return f"epoch_us({x}::TIME)::VARCHAR", "time"
        return x, hint or "text"
    raise SystemExit(f"a column of type {kind} has no canonical text")


def list_text(con, name, kind, hint):
    """Lists are made into text by a function over each one: they are rare."""
    element = kind[:-2]
    inner = hint[:-2] if hint.endswith("[]") else ""
    if element.endswith("[]"):
        raise SystemExit(f"a column of type {kind} has no canonical text")
    sql, inner = scalar_text("e", element, inner)
    function = f"list_{next(numbers)}"
    # The elements take the same way as columns do: unnested, made into text, gathered in order.
    # In a database of their own: con's threads wait for this one, and must not run its queries.
    own, turn = duckdb.connect(), threading.Lock()
    prepare(own)

    def run(column):
        offsets, texts = [0], []
        flat = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        elements = pa.table({"e": flat.flatten()})
        with turn:
            own.register("elements", elements)
            got = own.execute(f"SELECT CASE WHEN e IS NULL THEN NULL ELSE {sql} END FROM elements").fetchall() if len(elements) else []
        at = 0
        for size in pc.list_value_length(flat).to_pylist():
            if size is None:
                texts.append(None)
                continue
            parts = (v for (v,) in got[at : at + size])
            texts.append("[" + "".join("n," if v is None else f"{len(v.encode())}:{v}," for v in parts) + "]")
            at += size
        return pa.array(texts, pa.string())

    con.create_function(function, run, [kind], "VARCHAR", type="arrow", null_handling="special")
    return f"{function}({name})", inner + "[]"


# ---- sums -----------------------------------------------------------------


def prepare(con):
    con.execute("SET TimeZone = 'UTC'") if con.execute("SELECT 1 FROM duckdb_settings() WHERE name = 'TimeZone'").fetchall() else None
    con.execute("SET preserve_insertion_order = true")
    con.execute("SET enable_progress_bar = false")  # it would write between the answers
    con.create_function("float_bits", float_bits, ["DOUBLE"], "UBIGINT", type="arrow", null_handling="special")
    con.create_function("json_text", each(json_text), ["VARCHAR"], "VARCHAR", type="arrow", null_handling="special")
    con.create_function("number_text", each(plain), ["VARCHAR"], "VARCHAR", type="arrow", null_handling="special")


def fingerprint(con, relation, wanted):
    """The fingerprint of relation, SQL of something to select from, over one scan."""
    hints = {}
    for field in wanted:
        name, _, kind = field.rpartition(":") if ":" in field else (field, "", "")
        hints[name] = kind
    types = {r[0]: r[1] for r in con.execute(f"DESCRIBE SELECT * FROM {relation}").fetchall()}
    missing = [n for n in hints if n not in types]
    if missing:
        raise SystemExit("no column " + ", ".join(missing))
    names = sorted(hints or types)
    hashes, kinds = [], []
    for i, name in enumerate(names):
        column, hint = quote(name), hints.get(name, "")
        if types[name].endswith("[]"):
            text, kind = list_text(con, column, types[name], hint)
        else:
            text, kind = scalar_text(column, types[name], hint)
        kinds.append(kind)
        hashes.append(f"CASE WHEN {column} IS NULL THEN NULL ELSE md5_number_lower({text}) END AS h{i}")
    row = " || ',' || ".join(f"coalesce(h{i}::VARCHAR, 'n')" for i in range(len(names)))
    sums = ", ".join(f"sum(h{i}), count(*) - count(h{i})" for i in range(len(names)))
    got = con.execute(
        f"SELECT count(*), sum(md5_number_lower({row})), {sums} FROM (SELECT {', '.join(hashes)} FROM {relation}) AS t"
    ).fetchone()
    columns = {}
    for i, name in enumerate(names):
        columns[name] = {"kind": kinds[i], "hash": f"{int(got[2 + 2 * i] or 0) % MOD:016x}", "nulls": got[3 + 2 * i]}
    return {"rows": got[0], "columns": columns, "row_hash": f"{int(got[1] or 0) % MOD:016x}"}


# ---- engines --------------------------------------------------------------


def by_sql(request):
    con = duckdb.connect()
    prepare(con)
    for t in request["tables"]:
        yield lambda: fingerprint(con, f"({t['table']})", t["columns"] or [])


def attach(request):
    """A DuckDB with the request's catalog attached as lake."""
    import importlib.resources as resources

    c = request["catalog"]
    con = duckdb.connect(config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"})
    for extension in ("httpfs", "avro", "iceberg"):
        folder = resources.files(f"duckdb_extension_{extension}")
        file = next(f for f in walk(folder) if f.name == f"{extension}.duckdb_extension")
        con.execute(f"LOAD {literal(str(file))}")
    prepare(con)
    host = c["endpoint"].split("://")[-1]
    con.execute(
        f"CREATE SECRET s3 (TYPE s3, KEY_ID {literal(c['access_key'])}, SECRET {literal(c['secret_key'])}, REGION {literal(c['region'])},"
        f" ENDPOINT {literal(host)}, URL_STYLE 'path', USE_SSL {str(c['endpoint'].startswith('https')).lower()})"
    )
    con.execute(
        f"ATTACH {literal(c['warehouse'])} AS lake (TYPE iceberg, ENDPOINT {literal(c['uri'])}, AUTHORIZATION_TYPE 'none', ACCESS_DELEGATION_MODE 'none')"
    )
    return con


def by_duckdb(request):
    con = attach(request)
    for t in request["tables"]:
        relation = "lake." + ".".join(quote(p) for p in t["table"].split("."))
        yield lambda: fingerprint(con, relation, t["columns"] or [])


def by_query(request):
    con = attach(request)
    for t in request["tables"]:
        yield lambda: [[None if v is None else str(v) for v in row] for row in con.execute(t["table"]).fetchall()]


def walk(folder):
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from walk(entry)
        else:
            yield entry


def arrow_names(wanted):
    return [(f.rpartition(":")[0] if ":" in f else f) for f in wanted]


def storable(table):
    """uuid arrives as an extension or as 16 bytes by name; DuckDB wants text."""
    for i, field in enumerate(table.schema):
        kind = getattr(field.type, "storage_type", field.type)
        if isinstance(field.type, pa.ExtensionType) and kind == pa.binary(16):
            column = table.column(i).combine_chunks()
            texts = [None if b is None else str(b) for b in column.to_pylist()]
            table = table.set_column(i, field.name, pa.array(texts, pa.string()))
    return table


def by_pyiceberg(request):
    from pyiceberg.catalog import load_catalog

    c = request["catalog"]
    properties = {
        "type": "rest",
        "uri": c["uri"],
        "py-io-impl": "pyiceberg.io.pyarrow.PyArrowFileIO",
        "s3.endpoint": c["endpoint"],
        "s3.access-key-id": c["access_key"],
        "s3.secret-access-key": c["secret_key"],
        "s3.region": c["region"],
    }
    if c["warehouse"]:
        properties["warehouse"] = c["warehouse"]
    catalog = load_catalog("lake", **properties)

    def read(t):
        wanted = t["columns"] or []
        names = arrow_names(wanted)
        table = catalog.load_table(tuple(t["table"].split(".")))
        data = storable(table.scan(selected_fields=tuple(names) or ("*",)).to_arrow())
        con = duckdb.connect()
        prepare(con)
        con.register("delivered", data)
        return fingerprint(con, "delivered", wanted)

    for t in request["tables"]:
        yield lambda: read(t)


def by_spark(request):
    import glob

    from pyspark.sql import SparkSession

    c = request["catalog"]
    jars = ",".join(glob.glob(os.path.join(request["jars"], "*.jar")))
    settings = {
        "spark.jars": jars,
        "spark.ui.enabled": "false",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.memory": "1g",
        "spark.driver.extraJavaOptions": "-Duser.timezone=UTC",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": "4",
        "spark.sql.catalog.lake": "org.apache.iceberg.spark.SparkCatalog",
        "spark.sql.catalog.lake.type": "rest",
        "spark.sql.catalog.lake.uri": c["uri"],
        "spark.sql.catalog.lake.io-impl": "org.apache.iceberg.aws.s3.S3FileIO",
        "spark.sql.catalog.lake.s3.endpoint": c["endpoint"],
        "spark.sql.catalog.lake.s3.access-key-id": c["access_key"],
        "spark.sql.catalog.lake.s3.secret-access-key": c["secret_key"],
        "spark.sql.catalog.lake.s3.path-style-access": "true",
        "spark.sql.catalog.lake.client.region": c["region"],
        "spark.sql.catalog.lake.cache-enabled": "false",
    }
    if c["warehouse"]:
        settings["spark.sql.catalog.lake.warehouse"] = c["warehouse"]
    builder = SparkSession.builder.master("local[2]").appName("judge")
    for name, value in settings.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    with tempfile.TemporaryDirectory() as folder:

        def read(i, t):
            wanted = t["columns"] or []
            frame = spark.table("lake." + ".".join(f"`{p}`" for p in t["table"].split(".")))
            if wanted:
                frame = frame.select(*[f"`{n}`" for n in arrow_names(wanted)])
            # Through Parquet, so that the size of the table is no matter.
            frame.write.option("compression", "uncompressed").parquet(f"{folder}/{i}")
            con = duckdb.connect()
            prepare(con)
            return fingerprint(con, f"read_parquet({literal(f'{folder}/{i}/*.parquet')})", wanted)

        for i, t in enumerate(request["tables"]):
            yield lambda: read(i, t)
    spark.stop()


def attempt(read):
    """What read answers, or why it does not: one table must not hide the others."""
    try:
        return read()
    except (Exception, SystemExit) as e:
        return {"error": str(e).strip()[-1500:] or type(e).__name__}


def main():
    # Engines write progress to standard output when they feel like it: the answer has a way of its own.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.setrecursionlimit(20_000)  # documents may be deep
    request = json.load(sys.stdin)
    engines = {"sql": by_sql, "duckdb": by_duckdb, "pyiceberg": by_pyiceberg, "spark": by_spark, "query": by_query}
    out = [attempt(read) for read in engines[request["engine"]](request)]
    json.dump(out, answer)
    answer.close()


main()
