"""`python -m prism_crypto.bench`."""

from prism_crypto.bench.secure_sum import main

if __name__ == "__main__":
    main()
