"""Networks: encoders, decoders, fusion, and files of weights."""
