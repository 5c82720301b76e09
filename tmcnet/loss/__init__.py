"""The losses of pre-training."""

from tmcnet.loss.ntxent import InfoNCE, NTXent
from tmcnet.loss.reconstruction import reconstruction_error
from tmcnet.loss.tuple_ntxent import TupleNTXent

__all__ = ["InfoNCE", "NTXent", "TupleNTXent", "reconstruction_error"]
