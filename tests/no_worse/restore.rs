//! What pg_dump writes is restored through the proxy.
