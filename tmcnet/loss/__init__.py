"""The contrastive losses of pre-training."""

from tmcnet.loss.ntxent import InfoNCE, NTXent
from tmcnet.loss.tuple_ntxent import TupleNTXent

__all__ = ["InfoNCE", "NTXent", "TupleNTXent"]
