"""What torch.save writes: names, places and layouts of tensors, without PyTorch and without running anything."""

from bridge.torchfile.entry import Entry, Inline, Refused, RootTensors
from bridge.torchfile.read import HEAD_NBYTES, TorchFile, is_torch_file, read_torch_file

__all__ = ["HEAD_NBYTES", "Entry", "Inline", "Refused", "RootTensors", "TorchFile", "is_torch_file", "read_torch_file"]
