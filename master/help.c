/*
 * help - the text of --help.
 */
#include "master/help.h"

static const char usage[] =
    "usage: parleyd [options] [migrate | status | reload | drain | upgrade]\n"
    "       parleyd [options] key create|list|revoke ..\n";

static const char text[] =
    "\n"
    "Without a command it serves: a master process, and worker processes that share\n"
    "the listening addresses.\n"
    "\n"
    "Options (they win over the environment, which wins over the file):\n"
    "  --config FILE         configuration; without one, a demo setup for this machine\n"
    "  --listen ADDR:PORT    127.0.0.1:8080, [::]:8080 or unix:/path; may be repeated\n"
    "  --workers N|auto      worker processes; auto: the smaller of CPU affinity and\n"
    "                        cgroup quota\n"
    "  --max-connections N   requests in progress per worker (default 1000); a stream\n"
    "                        or a WebSocket counts for its whole life\n"
    "  --log-level L         debug, info, warn or error\n"
    "  --log-format F        text or json\n"
    "  --check-config        read the configuration, name every error, exit 0 or 78\n"
    "  --print-config        print what is in effect, secrets hidden\n"
    "  --version, --help\n"
    "\n"
    "Commands:\n"
    "  migrate               bring the database's schema up to date\n"
    "  key create|list|revoke  the keys in the store; `key create --help` says more\n"
    "  status [--watch | --json]  the running server as a table, once or live, or as JSON\n"
    "  reload                read the configuration again, as SIGHUP does\n"
    "  drain [--restart]     stop in good order, as SIGTERM does; --restart: listening\n"
    "                        sockets stay open in systemd's keeping for the next one\n"
    "  upgrade               a new binary takes over without a break, as on SIGUSR2\n"
    "\n"
    "Every scalar of the file has a variable PARLEY_SECTION__KEY (PARLEY_HTTP__MAX_BODY);\n"
    "WORKERS, DATABASE_URL, REDIS_URL and OPENAI_API_KEY are honoured too.\n"
    "\n"
    "Sizing the accept queue, per worker:\n"
    "  connection_queue_size (default 500) bounds connections that are accepted and whose\n"
    "  first request has not been dispatched; above it they wait in the listen backlog\n"
    "  (default 2048), which must not be smaller. Take 2 to 5 times the burst you expect:\n"
    "      small   50-100 users a worker      queue   50-100\n"
    "      medium  100-500                    queue   100-500\n"
    "      large   500-2,000                  queue   500-2,000\n"
    "  The kernel caps the backlog at net.core.somaxconn.\n"
    "  Connections to providers (providers[].http_client.max_connections): OpenAI 50-100,\n"
    "  Groq 20-30, OpenRouter 30-40; concurrent_requests 25-50 % of that.\n"
    "\n"
    "Signals: TERM and INT drain and stop (twice: at once), HUP reloads, USR1 opens the\n"
    "log file again, USR2 upgrades. Exit status: 0, 1 (failed), 64 (wrong usage), 78 (wrong "
    "configuration).\n";

void
help_print_usage(FILE *out)
{
	fputs(usage, out);
	fputs("`parleyd --help` says more.\n", out);
}

void
help_print(FILE *out)
{
	fputs(usage, out);
	fputs(text, out);
}
