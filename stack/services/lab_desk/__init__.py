"""Tools of the lab's agents: an MCP server with a ledger of its effects."""
