#!/bin/sh
# The container's ejabberd: fills the template in, as prepare() of the launcher does on one machine, and starts it.
set -eu
umask 077
secrets=${SECRETS_DIR:-/run/secrets}

# before the health check can: it starts an Erlang as well, and of two that make the file at once one ends
cookie=$HOME/.erlang.cookie
if [ ! -e "$cookie" ]; then
  od -An -N20 -tx1 /dev/urandom | tr -d ' \n' >"$cookie.new"
  mv "$cookie.new" "$cookie"
fi

# shellcheck disable=SC2034 # the template's names
{
  xmpp_host=${XMPP_HOSTS:-$XMPP_HOST}
  xmpp_host=${xmpp_host%%,*}
  hosts_file=${EJABBERD_CONFIG_PATH%/*}/hosts.yml
  echo "{\"hosts\": [$(echo "${XMPP_HOSTS:-$XMPP_HOST}" | sed 's/ *, */, /g')], \"certfiles\": [\"$secrets/ejabberd.pem\"]}" >"$hosts_file"
  hosting=$HOSTING
  log_level=$LOG_LEVEL
  private_network=$PRIVATE_NETWORK
  private_ip=$LISTEN_IP
  listen_ip=$LISTEN_IP
  websocket_ip=$LISTEN_IP
  c2s_port=$C2S_PORT
  c2s_tls_port=$C2S_TLS_PORT
  websocket_port=$WEBSOCKET_PORT
  component_port=$COMPONENT_PORT
  ejabberd_api_port=$EJABBERD_API_PORT
  starttls_required=true
  disabled_mechanisms=$(cat "$(dirname "$EJABBERD_TEMPLATE")/disabled_mechanisms")
  # in Mnesia the database is where all of it can be moved to
  storage=$STORAGE
  if [ "$storage" = mnesia ]; then accounts=internal use_cache=true; else accounts=sql use_cache=false; fi
  sql_server=$SQL_SERVER
  sql_port=$SQL_PORT
  sql_password=$(cat "$secrets/orchestrator_ejabberd_database_password")
  sql_tables=/usr/share/ejabberd/sql/pg.new.sql
  sql_multihost=$(cat "$(dirname "$EJABBERD_TEMPLATE")/sql_multihost")
  certfile=$secrets/ejabberd.pem
  component_secret=$(cat "$secrets/orchestrator_component_secret")
  ejabberd_api_secret=$(cat "$secrets/orchestrator_ejabberd_api_secret")
}
# what the shell does with names in a here-document is what string.Template does; it knows no other signs in this one
eval "cat >\"$EJABBERD_CONFIG_PATH\" <<END
$(cat "$EJABBERD_TEMPLATE")
END"

# ejabberdctl may stay before the server and pass no signal on to it, so it is asked to stop
ejabberdctl foreground &
server=$!
trap 'ejabberdctl stop' TERM INT
# a signal ends the first wait, and the server's end the second
wait $server || wait $server
