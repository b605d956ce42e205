"""What of a repository becomes an object of KServe's. Knows no cluster and starts no server."""
