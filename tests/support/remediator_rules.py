"""A small set of remediation rules, and the project that they repair."""

PROJECT = "llmchaos-test"
RULES = """
schema: llmlab-remediation/1
guards: {cooldown_s: 0.1, startup_grace_s: 0, recovered_s: 0.1, max_attempts: 20}
signals: {scrape: {query: up, fires: "< 1", every_s: 0.05}}
rules:
  - {name: api-exited, services: [api], signal: [{signal: scrape}], evidence: [{container: [exited]}], action: start}
  - {name: api-paused, services: [api], signal: [{signal: scrape}], evidence: [{container: [paused]}], action: kill}
"""
