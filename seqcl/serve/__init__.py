"""HTTP and a page over runs and bundles: what `seqcl serve` starts. It needs the extra `serve`."""
