"""Where images come from: one module a kind of source, all behind `prism_secure.data.load`."""
