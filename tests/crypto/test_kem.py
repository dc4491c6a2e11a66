"""ML-KEM-768 as `cryptography` has it is that of FIPS 203, and hybrid sessions are what the page says."""
