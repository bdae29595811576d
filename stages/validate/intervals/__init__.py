"""What a number from a finite sample may be worth: intervals of one file's numbers and of differences between two.

Proportions in `proportions`, areas under the ROC curve in `ranks`, means in `means`, everything else by the bootstrap
in `resampling`; `paired` has the differences between a variant and fp32, `sample_size` the images that they need.
Every interval is two-sided at 95 % unless a function takes a tail.
"""
