"""Engine process: holds the engines of all models of a device, and runs the batches that the models' processes send.

One process is one CUDA context on a GPU, so that batches of different models overlap there as they do in stock Triton.
"""
