"""The numbers: one file a task, and in `methods` one file a method.

These files are loaded by path (`ractd_jax.cli.configs`), so they import each other relatively.
"""
