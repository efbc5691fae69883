//! Settings that are one of a few words, such as the mode of the proxy.
//!
//! Invariant: each word is written once, here. The reader of `proxy.toml`, its errors and the log take it from here.

use std::fmt;

/// A setting that is one of a few words.
pub(super) trait Word {
    fn words(&self) -> &'static [&'static str];
    /// False: not one of the words.
    fn set(&mut self, word: &str) -> bool;
}

/// A setting that is one of a few words; the words are written once, here.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_meta])* $variant,)+ }

        impl $name {
            pub const WORDS: &'static [&'static str] = &[$($word,)+];

            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }

            pub fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)+ _ => None }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(self.as_str()) }
        }

        impl Word for $name {
            fn words(&self) -> &'static [&'static str] { Self::WORDS }

            fn set(&mut self, word: &str) -> bool {
                Self::from_word(word).map(|value| *self = value).is_some()
            }
        }
    };
}

words! {
    /// How far the proxy goes; the order in which a careful team adopts it.
    Mode {
        /// Intercepts nothing.
        Relay = "relay",
        /// Relays, and says what it would have done.
        Observe = "observe",
        /// Queue, lock attempts and retry; no statement is rewritten.
        Guard = "guard",
        /// All of it.
        Plan = "plan",
    }
}

words! {
    /// How the relay reads and writes its sockets.
    Io {
        /// By io_uring if the system allows it.
        Auto = "auto",
        Epoll = "epoll",
        /// Or not at all.
        IoUring = "io_uring",
    }
}

words! {
    /// Towards clients; Unix sockets are never encrypted.
    ListenTlsMode {
        Disable = "disable",
        /// As the client likes.
        Allow = "allow",
        /// No session without; a CancelRequest, which older clients send in plain text, passes.
        Require = "require",
    }
}

words! {
    /// libpq's `sslmode`, without its `allow`.
    BackendTlsMode {
        Disable = "disable",
        /// If the server can; the certificate is not checked.
        Prefer = "prefer",
        /// The certificate is checked only if a root is given, as in libpq.
        Require = "require",
        VerifyCa = "verify-ca",
        VerifyFull = "verify-full",
    }
}

words! {
    /// libpq's `sslnegotiation`.
    Negotiation {
        /// By PostgreSQL's SSLRequest.
        Postgres = "postgres",
        /// The handshake at once; PostgreSQL 17 and later.
        Direct = "direct",
    }
}

words! {
    /// What becomes of a text that cannot be inspected.
    Fallback {
        Relay = "relay",
        Refuse = "refuse",
    }
}

words! {
    /// What becomes of a statement that may be long under a lock that blocks the application.
    Unsafe {
        Warn = "warn",
        Refuse = "refuse",
    }
}

words! {
    /// How a client's own wait for an advisory lock is served.
    AdvisoryLocks {
        /// By the proxy, so that no concurrent build has to wait for it.
        Poll = "poll",
        /// In the server.
        Relay = "relay",
    }
}

words! {
    /// What is done about an autovacuum that blocks a brief step.
    Autovacuum {
        /// `pg_cancel_backend`; where that is not permitted, as `Outwait`.
        Cancel = "cancel",
        /// One lock attempt longer than `deadlock_timeout`, which makes the autovacuum yield.
        Outwait = "outwait",
        /// Until it is done.
        Wait = "wait",
    }
}

words! {
    LogLevel {
        Error = "error",
        Warn = "warn",
        Info = "info",
        Debug = "debug",
        Trace = "trace",
    }
}

words! {
    LogFormat {
        Text = "text",
        Json = "json",
    }
}
