"""Settings of the tests' systems: periods that tests wait for are shorter than in use."""

PING_SECONDS = 2
SECOND_HOST = "second.example"
SETTINGS = {
    # most tests are of tenants of the first
    "ORCHESTRATOR_XMPP_HOSTS": f"localhost,{SECOND_HOST}",
    "ORCHESTRATOR_OPERATOR_PING_SECONDS": str(PING_SECONDS),
    "ORCHESTRATOR_OPERATOR_PING_TIMEOUT": "3",
    # a test makes in a second what a customer makes in a minute
    "ORCHESTRATOR_CALLS_PER_SECOND": "100000",
}
