"""archiveprobe command line."""
