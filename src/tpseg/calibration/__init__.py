"""What a model says about its own limits: which task an image is, whether it is like anything learned, how sure a mask is.

`tpseg calibrate` measures it and saves it with the model (record.py); predictions then carry warnings.
"""
