#!/usr/bin/env bash
# spark.sh   prints a Python with Spark 4.1, then the folder of Iceberg's jars; both got when missing (600 MB). For make engines.
. "$(dirname "$0")/lib.sh"

jars=$cache/spark-jars-1.12.0

get() {
  if ! { [ -x "$cache/spark/bin/python" ] && cmp -s "$here/spark.txt" "$cache/spark/.ready"; }; then
    need_java
    say "getting Spark 4.1 (490 MB)"
    # pyspark comes as source: its setup only copies files
    need_python
    rm -rf "$cache/spark"
    python3 -m venv "$cache/spark"
    "$cache/spark/bin/python" -m pip install --quiet --disable-pip-version-check -r "$here/spark.txt" >&2
    cp "$here/spark.txt" "$cache/spark/.ready"
  fi
  if [ ! -e "$jars/.ready" ]; then
    need mvn "apt-get install -y maven"
    say "getting Iceberg 1.12 for Spark (116 MB)"
    rm -rf "$jars"
    mvn --batch-mode --quiet -Dstyle.color=never -f "$here/spark-pom.xml" org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
      -DincludeScope=runtime -DexcludeTransitive=true -DoutputDirectory="$jars" >&2
    touch "$jars/.ready"
  fi
}

locked spark get
echo "$cache/spark/bin/python"
echo "$jars"
