#!/bin/sh
# What the official image's start script does of what docker-compose.yml asks for.
set -eu
data=/var/lib/postgresql/data
if [ ! -e $data/PG_VERSION ]; then
  initdb --pgdata=$data --username="$POSTGRES_USER" --pwfile="$POSTGRES_PASSWORD_FILE" --auth=scram-sha-256 --encoding=UTF8 --no-locale
  echo "host all all all scram-sha-256" >>$data/pg_hba.conf
  echo "listen_addresses = '*'" >>$data/postgresql.conf
  echo "CREATE DATABASE $POSTGRES_DB" | postgres --single -D $data postgres
fi
exec "$@" -D $data
