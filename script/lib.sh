# Shared by the scripts of this folder: installs what the project needs, once, and says what it does.
# Sourced, not run.

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$project/.venv

say() { printf '\033[1m%s\033[0m\n' "$*" >&2; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# install_packages [rabbitmq] [postgresql] [servers] [tests]: ejabberd (with Erlang's compiler and its headers), Redis,
# openssl, curl, jq, a Python that can make venvs; those servers; for `servers` both, and Erlang's tools for tests; for
# the tests all that, docker-compose, which reads its file without Docker's engine, a browser, two web servers, systemd,
# clients of operators and PHP (LHC's encoders).
install_packages() {
  local wanted=" $* " missing=() optional=() one
  case $wanted in *" tests "*) wanted+="servers " ;; esac
  case $wanted in *" servers "*) wanted+="rabbitmq postgresql " ;; esac
  case $wanted in *" postgresql "*)
    compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || missing+=(postgresql)
    # what ejabberd speaks to it with
    compgen -G '/usr/lib/erlang/lib/p1_pgsql-*' >/dev/null || missing+=(erlang-p1-pgsql) ;;
  esac
  case $wanted in *" rabbitmq "*)
    [ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] || missing+=(rabbitmq-server) ;;
  esac
  case $wanted in *" servers "*)
    # EUnit, for the bridge's own tests, and its header; xref, which finds calls of functions that are not there
    compgen -G '/usr/lib/erlang/lib/tools-*/ebin' >/dev/null || missing+=(erlang-tools)
    compgen -G '/usr/lib/erlang/lib/eunit-*/ebin' >/dev/null || missing+=(erlang-eunit)
    compgen -G '/usr/lib/erlang/lib/eunit-*/include' >/dev/null || missing+=(erlang-dev) ;;
  esac
  case $wanted in *" tests "*)
    # for the services of docker-compose.yml, whose user may not reach into root's own folder
    /usr/bin/python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3 python3-venv)
    command -v docker-compose >/dev/null || missing+=(docker-compose)
    command -v chromium >/dev/null || optional+=(chromium) missing+=(fonts-dejavu-core)
    # the web servers that docs/proxy is for; nginx's folder is not on everybody's path
    [ -x /usr/sbin/nginx ] || missing+=(nginx-light)
    command -v caddy >/dev/null || missing+=(caddy)
    # whose encoders LHC writes with
    command -v php >/dev/null && php -m | grep -x xmlrpc >/dev/null || missing+=(php-cli php-xmlrpc)
    # which says whether it understands our units, and runs them
    command -v systemd-analyze >/dev/null || missing+=(systemd)
    # clients of operators
    for one in profanity mcabber poezio go-sendxmpp; do
      command -v $one >/dev/null || optional+=($one)
    done ;;
  esac
  command -v erlc >/dev/null && compgen -G '/usr/lib/*/ejabberd-*/include' >/dev/null || missing+=(ejabberd erlang-base)
  command -v redis-server >/dev/null && command -v redis-cli >/dev/null || missing+=(redis-server)
  command -v openssl >/dev/null || missing+=(openssl)
  find_python >/dev/null || missing+=(python3 python3-venv)
  # the documentation's examples call these
  command -v curl >/dev/null || missing+=(curl)
  command -v jq >/dev/null || missing+=(jq)
  if [ ${#missing[@]} != 0 ] && [ ${#optional[@]} != 0 ]; then as_root apt-get update -q >&2; fi
  # what a Debian has no longer, and Ubuntu not as a package, the tests do without
  for one in "${optional[@]}"; do
    if apt-cache show "$one" >/dev/null 2>&1; then missing+=("$one"); fi
  done
  if [ ${#missing[@]} = 0 ]; then return; fi

  say "Installing Debian packages: ${missing[*]} …"
  apt_install "${missing[@]}"
}

# apt_install ARGUMENTS: of apt-get install.
apt_install() {
  # The packages would start services of their own. We start private ones, so the packages are told not to.
  local policy=/usr/sbin/policy-rc.d made_policy=no
  if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' | as_root tee $policy >/dev/null
    as_root chmod +x $policy
    made_policy=yes
  fi
  local status=0
  {
    as_root apt-get update -q &&
      as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@"
  } >&2 || status=$?
  if [ $made_policy = yes ]; then as_root rm -f $policy; fi
  return $status
}

# debian_mirror: where this machine's packages come from. (All of apt's answer is read: who is hung up on fails.)
debian_mirror() {
  apt-get indextargets --format '$(REPO_URI)' 2>/dev/null |
    awk '/\/debian\/$/ && !found { found = $0 } END { print found ? found : "http://deb.debian.org/debian/" }'
}

# install_newest_ejabberd: the one of this Debian's backports, with what it needs of them; fails where there is none.
install_newest_ejabberd() {
  local release backports newest
  local list=/etc/apt/sources.list.d/lhc-backports.list pin=/etc/apt/preferences.d/lhc-backports
  release=$(. /etc/os-release && [ "$ID" = debian ] && echo "${VERSION_CODENAME:-}") && [ -n "$release" ] ||
    { say "--ejabberd newest: a newer ejabberd comes from Debian's backports, and this is not Debian"; return 1; }
  backports=$release-backports
  if [ ! -e $pin ]; then
    case " $(apt-get indextargets --format '$(RELEASE)' | tr '\n' ' ')" in
      *" $backports "*) ;;
      *) echo "deb $(debian_mirror) $backports main" | as_root tee $list >/dev/null ;;
    esac
    # of backports ejabberd alone, with the libraries that it needs there; what is installed later, too
    printf '%s\n' 'Package: ejabberd erlang-*' "Pin: release n=$backports" 'Pin-Priority: 600' |
      as_root tee $pin >/dev/null
    as_root apt-get update -q >&2 || true
  fi
  newest=$(apt-cache policy ejabberd | awk '/Candidate:/ { print $2 }')
  case $newest in
    *~bpo*) ;;
    *)
      # apt would fail from now on at a list that is not there
      as_root rm -f $list $pin
      say "--ejabberd newest: $backports has no ejabberd that is newer than $newest, which script/up runs by itself"
      return 1 ;;
  esac
  if [ "$(dpkg-query --showformat '${Version}' --show ejabberd 2>/dev/null)" = "$newest" ]; then return; fi
  say "Installing ejabberd $newest of $backports …"
  apt_install ejabberd erlang-base
}

# install_packages_of ARGUMENTS: those that a command with these arguments needs.
install_packages_of() {
  local servers=()
  case "$* " in *"--broker rabbitmq "* | *"--broker=rabbitmq "*) servers+=(rabbitmq) ;; esac
  case "$* " in *"--database postgresql "* | *"--database=postgresql "* | *--move-storage*) servers+=(postgresql) ;; esac
  install_packages "${servers[@]}"
}

# A Python of 3.11 or newer that can make a virtual environment with pip.
find_python() {
  local python
  for python in python3.14 python3.13 python3.12 python3.11 python3; do
    if command -v "$python" >/dev/null &&
      "$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$python"
      return
    fi
  done
  return 1
}

# install_python LOCK: the virtual environment with the packages of the lock file, checked by their hashes.
install_python() {
  local lock=$project/$1 python
  # who has what developers have, has it all
  if is_installed "$1" || is_installed requirements-dev.lock; then return; fi
  python=$(find_python) || { say "Python 3.11 or newer is needed"; return 1; }
  say "Installing Python packages from $1 …"
  [ -x "$venv/bin/pip" ] || "$python" -m venv "$venv"
  "$venv/bin/pip" install --disable-pip-version-check --progress-bar off --require-hashes -r "$lock" |
    sed '/^Requirement already satisfied/d' >&2
  "$venv/bin/pip" install --disable-pip-version-check -q --no-deps --no-build-isolation -e "$project" >&2
  sum_of "$1" >"$venv/installed-$1"
}

is_installed() { [ "$(cat "$venv/installed-$1" 2>/dev/null)" = "$(sum_of "$1")" ]; }

sum_of() { cat "$project/$1" "$project/pyproject.toml" | sha256sum; }
