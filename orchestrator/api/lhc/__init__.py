"""The face that LHC's extension knows: its JSON calls and its XML-RPC calls, answered as its old servers did."""
