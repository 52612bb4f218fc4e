"""From a source to arrays on the device.

`sources` finds and reads a task's data, `validation` checks them, `windows` and `transitions` make
them a training set, normalised by `normalization`. `generate` makes data where there is none.
"""
