"""Methods that are neither prompts nor adapters: attention without and with weights, weight averaging, segmentation."""
