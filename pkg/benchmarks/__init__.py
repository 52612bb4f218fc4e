"""What speed is compared with; `ractd_jax.bench` measures."""
