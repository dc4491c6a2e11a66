"""The generator, from frozen weights to files that others load.

    generator, network    the built-in ResNet; which network an architecture stands for, one's own too
    supermask             frozen random weights, of which scores say the ones to keep
    deployed              architecture, seed and mask as one network
    sparse_inference      the same, computed from the kept weights alone
    model_file, model_card    its file, without code or pickle; what it says about itself
    onnx_export, generated_set    for runtimes without Python; its images as a data set

It does not train, depends on no federation, and reads no images but those that it draws.
"""
