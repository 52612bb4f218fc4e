"""What RACTD is compared with: one method, one file, found by itself."""
