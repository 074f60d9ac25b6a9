"""The load generator: Locust in a process of its own.

`locustfile` runs in that process, `process` controls it. Only `load_plan` and `process`
may be imported by pytest's process. The other modules need gevent's monkey patching.
"""
