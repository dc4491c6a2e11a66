"""The secure sum: keys, shares, masks, packing, protocol."""
