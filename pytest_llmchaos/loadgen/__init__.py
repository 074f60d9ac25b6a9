"""The load generator: Locust in a process of its own (`locustfile`), and the handle by which the instrument holds it (`process`).

Only `plan` and `process` may be imported where pytest runs; the rest needs gevent's patched world.
"""
