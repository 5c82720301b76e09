"""The contrastive loss of pre-training."""

from tmcnet.loss.tuple_ntxent import TupleNTXent

__all__ = ["TupleNTXent"]
