//! Settings that are one of a few words, such as the mode of the proxy.
//!
//! Invariant: each word is written once, here. The reader of `proxy.toml`, its errors and the log take the words from here.

use std::fmt;

/// A setting that is one of a few words.
pub(super) trait Word {
    fn words(&self) -> &'static [&'static str];
    fn word(&self) -> &'static str;
    /// Sets the word. Returns false if the setting does not have this word.
    fn set(&mut self, word: &str) -> bool;
}

/// Defines a setting that is one of a few words.
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

            fn word(&self) -> &'static str { self.as_str() }

            fn set(&mut self, word: &str) -> bool {
                Self::from_word(word).map(|value| *self = value).is_some()
            }
        }

        /// A setting that may be left out.
        impl Word for Option<$name> {
            fn words(&self) -> &'static [&'static str] { $name::WORDS }

            fn word(&self) -> &'static str { self.map_or("", $name::as_str) }

            fn set(&mut self, word: &str) -> bool {
                $name::from_word(word).map(|value| *self = Some(value)).is_some()
            }
        }
    };
}

words! {
    /// How far the proxy intervenes. The modes stand in the order in which a careful team adopts them.
    Mode {
        /// The proxy intercepts nothing.
        Relay = "relay",
        /// The proxy relays, and logs what it would have done.
        Observe = "observe",
        /// The proxy queues schema changes, makes lock attempts and retries; it rewrites no statement.
        Guard = "guard",
        /// The proxy does everything.
        Plan = "plan",
    }
}

words! {
    /// How the relay reads and writes its sockets.
    Io {
        /// The relay uses io_uring if the system allows it, and epoll otherwise.
        Auto = "auto",
        Epoll = "epoll",
        /// The relay uses io_uring. If the system forbids it, the proxy does not start.
        IoUring = "io_uring",
    }
}

words! {
    /// Encryption towards clients. Unix sockets are never encrypted.
    ListenTlsMode {
        Disable = "disable",
        /// The client chooses.
        Allow = "allow",
        /// Every session must be encrypted. A CancelRequest passes unencrypted, since older clients send it in plain text.
        Require = "require",
    }
}

words! {
    /// libpq's `sslmode`, without its value `allow`.
    BackendTlsMode {
        Disable = "disable",
        /// The connection is encrypted if the server can. The certificate is not checked.
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
        /// The proxy sends PostgreSQL's SSLRequest first.
        Postgres = "postgres",
        /// The proxy begins the handshake at once. This needs PostgreSQL 17 or later.
        Direct = "direct",
    }
}

words! {
    /// How the proxy treats a text that it cannot inspect.
    Fallback {
        Relay = "relay",
        Refuse = "refuse",
    }
}

words! {
    /// How the proxy treats a statement that may be long under a lock that blocks the application.
    Unsafe {
        Warn = "warn",
        Refuse = "refuse",
    }
}

words! {
    /// How the proxy treats a statement in a transaction of the client's that would make the application wait there.
    InTransaction {
        /// The transaction is rolled back, the statement is done ahead of it in phases, and the transaction is run again.
        Hoist = "hoist",
        /// The statement runs in the transaction as it is written, with a WARNING.
        Guard = "guard",
        Refuse = "refuse",
    }
}

words! {
    /// Who waits when a client's own statement waits for a lock: LOCK TABLE, or a call for an advisory lock.
    LockWaits {
        /// The proxy waits, so that nobody has to wait for the client: no reader or writer of the table, and no concurrent build.
        Poll = "poll",
        /// The server waits.
        Relay = "relay",
    }
}

words! {
    /// How the proxy treats an autovacuum that blocks a brief step.
    Autovacuum {
        /// The proxy calls `pg_cancel_backend`. If that is not permitted, it acts as for `Outwait`.
        Cancel = "cancel",
        /// The proxy makes one lock attempt longer than `deadlock_timeout`, which makes the autovacuum yield.
        Outwait = "outwait",
        /// The proxy waits until the autovacuum is done.
        Wait = "wait",
    }
}

words! {
    /// What a user of the console may do.
    Role {
        /// The user may look and act.
        Admin = "admin",
        /// The user may look.
        Viewer = "viewer",
    }
}

words! {
    /// The verdict of a rule of the gate.
    VerdictWord {
        /// The statement runs as the settings say.
        Allow = "allow",
        /// The statement runs by a plan of phases, whatever the mode is.
        Plan = "plan",
        /// The statement runs as it is written, by lock attempts.
        Guard = "guard",
        /// The statement waits until somebody approves it.
        Hold = "hold",
        Refuse = "refuse",
        /// The statement runs only while a window is open.
        Window = "window",
    }
}

words! {
    /// Where a held statement is stopped.
    GatePlace {
        /// Before its first phase.
        Launch = "launch",
        /// Before the last step that takes a strong lock.
        CutOver = "cut-over",
        Both = "both",
    }
}

words! {
    /// What becomes of a schema change whose client goes away.
    OnDisconnect {
        /// It goes on if what it makes is additive, takes long, and is on record. Otherwise it is undone.
        Auto = "auto",
        Continue = "continue",
        Undo = "undo",
    }
}

words! {
    /// How a session is treated that is in the way of a schema change.
    BlockersPolicy {
        Wait = "wait",
        /// The proxy calls `pg_terminate_backend`, if the session is idle in a transaction.
        Terminate = "terminate",
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

words! {
    /// What the webhook tells of.
    WebhookEvent {
        /// A statement waits for an approval.
        Held = "held",
        Approved = "approved",
        /// A schema change ended in an error.
        Failed = "failed",
        Completed = "completed",
        /// A schema change has waited for `blocked_after`.
        Blocked = "blocked",
    }
}
