"""SAM-2: features, mask decoding from [SEG], memory and propagation."""
