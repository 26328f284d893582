"""What a file may cost to be understood. Real files stay far below each of these."""

MAX_PICKLE_NBYTES = 24_000_000
"""A tensor takes 150 bytes: 160,000 of them. The rest are arrays inside the pickle, which are small. As text with one
character beyond the first 65,536 in it, Python holds four times as many bytes."""

MAX_OPCODES = 2_100_000
"""A tensor takes 32 opcodes: 65,000 of them. An opcode can make an object of 90 bytes: 190 MB at worst."""

MAX_MEMO = 1_000_000
"""Values kept to be recalled by number. A tensor has 8 of them; one takes 130 bytes where the numbers do not follow."""

MAX_GLOBALS = 10_000
"""Different classes and functions that are named. Real files name fewer than 100."""

FREE_COPIED_NBYTES, MAX_COPIED_NBYTES = 1_000_000, 64_000_000
"""What is copied inside the pickle (text into bytes, pairs into a dict) may take twice its bytes between these two.
An object that is recalled again and again would be copied each time: a product of two numbers from a small file."""

PAIR_NBYTES = 32
"""What a pair that is put into a dict counts as, in bytes that are copied."""

MAX_INT_NBYTES = 255
"""Seeds and states of random generators have 20. Longer ones take quadratic time as soon as they are printed."""

MAX_DIGITS = 40
"""Of a number written as text, by Python 2 for more than 31 bits."""

MAX_NAME_NBYTES = 1_000
"""Of the module or the name of a class or function."""

MAX_DEPTH = 50
"""Of dicts in dicts, and of modules in modules. A dict may hold itself."""

MAX_NODES = 200_000
"""Values looked at on the way to the tensors. 60 dicts, each of which holds the next twice, have 2^60 paths."""

MAX_RECORDS = 300_000
"""In a zip, one for each storage; a record takes 250 bytes while the directory is read."""

MAX_DIRECTORY_NBYTES = 32_000_000
"""Of a zip: 300,000 records with names of 60 bytes."""

MAX_CODE_NBYTES = 8_000_000
"""Of the source texts in a TorchScript archive, inflated. They are read for the lists of parameters and buffers."""

MAX_AXES = 64
"""Of a tensor, as in numpy."""

MAX_ELEMENTS = 2**63 - 1
"""Of a tensor or a storage: PyTorch counts in 64 bits."""

MAX_EXPANDED_NBYTES = 1 << 30
"""What a tensor that repeats its elements may take beyond its storage. 4 bytes can be expanded to any size."""
