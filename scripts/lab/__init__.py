"""The laboratory: how the embedded model is trained, the benchmarks, and the study of the paper's claims."""
