//! Every bound of this crate: lengths, counts, queues and waits, each with its unit and its reason.
//!
//! Leaves out: what the journal bounds (an entry's length) and what cas bounds (a chunk's); both are
//! checked again here at the edge.
//!
//! Invariants:
//! - nothing read from a peer is allocated before it was compared with a bound of this page;
//! - nothing waits for a peer longer than a bound of this page.

use std::time::Duration;

// Frames and messages ---------------------------------------------------------------------------

/// Longest frame after its length field, bytes. A batch of entries fits twice.
pub const FRAME_LEN_MAX: usize = 1 << 20;
/// Longest entry taken from a peer, bytes (the journal's own bound plus signature and head).
pub const ENTRY_LEN_MAX: usize = 264 * 1024;
/// Entry bytes put into one message, bytes; one entry may exceed it, never the frame.
pub const BATCH_LEN_MAX: usize = 512 * 1024;
/// Entries in one message, count: bounds the work of one `receive`.
pub const BATCH_ENTRIES_MAX: usize = 4096;
/// Entry bytes sent and not yet acknowledged, a peer: deep enough to fill a distant link.
pub const IN_FLIGHT_LEN_MAX: usize = 2 << 20;
/// Batches of a peer read but not yet taken in, count; reading stops there.
pub const RECEIVE_QUEUE_MAX: usize = 4;
/// Entries a peer acknowledged without taking in, count. More means it refuses our journal.
pub const UNTAKEN_MAX: usize = 1024;
/// The same of a peer whose frontier is full, count: some device has so many branches that they cannot all be named, and
/// what was sent of the others is not known to be there. Some 40 MB.
pub const UNNAMED_MAX: usize = 1 << 20;
/// Ids in one `Want`, count.
pub const WANT_IDS_MAX: usize = 256;
/// Times one missing entry is asked for in a session, count.
pub const WANT_ASKS_MAX: u8 = 3;
/// Distinct missing entries a session asks for, count.
pub const WANT_TRACKED_MAX: usize = 4096;
/// Messages queued towards one peer, count; the session stops reading until they drain.
pub const SEND_QUEUE_MAX: usize = 16;
/// Longest genesis entry, bytes.
pub const GENESIS_LEN_MAX: usize = ENTRY_LEN_MAX;
/// Longest device name, bytes.
pub const NAME_LEN_MAX: usize = 128;

// Addresses --------------------------------------------------------------------------------------

/// Longest binary multiaddress taken from a peer or a ticket, bytes.
pub const ADDR_LEN_MAX: usize = 256;
/// Addresses remembered or sent for one device, count.
pub const ADDRS_PER_DEVICE_MAX: usize = 16;
/// Devices in one `Addresses` message, count.
pub const ADDRS_DEVICES_MAX: usize = 64;
/// Addresses in a ticket, count.
pub const TICKET_ADDRS_MAX: usize = 12;
/// Longest ticket text, bytes.
pub const TICKET_LEN_MAX: usize = 4096;
/// Longest address book file, bytes; a longer one is not ours.
pub const BOOK_FILE_LEN_MAX: u64 = 4 << 20;

// Connections ------------------------------------------------------------------------------------

/// Connections that have not finished their handshake, count.
pub const PENDING_INCOMING_MAX: u32 = 32;
/// Dials under way, count.
pub const PENDING_OUTGOING_MAX: u32 = 32;
/// Established connections, count.
pub const CONNECTIONS_MAX: u32 = 128;
/// Established connections with one peer, count: two crossing dials over each transport.
pub const CONNECTIONS_PER_PEER_MAX: u32 = 4;
/// Multiplexed streams of one connection, count.
pub const STREAMS_PER_CONNECTION_MAX: usize = 32;
/// Inbound streams of one connection that are still choosing a protocol, count.
pub const NEGOTIATING_STREAMS_MAX: usize = 8;
/// Outbound streams waiting to be opened on one connection, count.
pub const OPENING_STREAMS_MAX: usize = 16;
/// Connected peers that are no members, count; they may only speak the join protocol.
pub const STRANGERS_MAX: usize = 8;
/// How long a stranger may stay connected before it has proved its invitation.
pub const STRANGER_TIME: Duration = Duration::from_secs(10);
/// Removed devices that are told so at once, count.
pub const LEAVING_MAX: usize = 2;
/// How long a removed device may stay connected to hear of it and to leave what it wrote before.
pub const LEAVING_TIME: Duration = Duration::from_secs(60);
/// After the beginning of such a visit the next one of that device is refused for so long.
pub const LEAVING_INTERVAL: Duration = Duration::from_secs(300);
/// Bytes of journal taken from a removed device in one visit.
pub const LEAVING_LEN_MAX: u64 = 64 << 20;
/// Returns of a device to where it listened before that make it run in two places, count.
pub const TWIN_RETURNS: usize = 2;
/// Within this time.
pub const TWIN_WINDOW: Duration = Duration::from_secs(300);
/// Transport, security and multiplexer handshakes together.
pub const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// Opening a stream on a live connection, and each message of a greeting.
pub const GREETING_TIME: Duration = Duration::from_secs(10);
/// A connection without any of our streams is closed after this.
pub const IDLE_CONNECTION_TIME: Duration = Duration::from_secs(15);
/// Time between pings; a dead link goes unnoticed for at most twice this and [`PING_TIMEOUT`] together, since the
/// first unanswered ping is forgiven.
pub const PING_INTERVAL: Duration = Duration::from_secs(3);
/// A ping unanswered for this long ends the connection.
pub const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// A write of one frame to a peer that takes longer ends the session: it does not read.
pub const WRITE_TIME: Duration = Duration::from_secs(60);
/// The slower transport is tried when the first has not connected after this.
pub const SECOND_TRANSPORT_DELAY: Duration = Duration::from_millis(700);
/// A connection that lasted this long was worth its dial: the next wait starts small again.
pub const SETTLED_TIME: Duration = Duration::from_secs(30);
/// Crossing dials: a second connection this young does not replace the first.
pub const CROSSING_DIAL_TIME: Duration = Duration::from_secs(5);

// Reconnection and penalties -----------------------------------------------------------------------

/// First wait before a member is dialled again.
pub const RECONNECT_MIN: Duration = Duration::from_secs(1);
/// Longest wait between dials of a member.
pub const RECONNECT_MAX: Duration = Duration::from_secs(60);
/// Violations after which a peer is disconnected and kept out, count.
pub const STRIKES_MAX: u32 = 3;
/// First exclusion of a peer that broke the protocol; doubles each time.
pub const BAN_MIN: Duration = Duration::from_secs(10);
/// Longest exclusion.
pub const BAN_MAX: Duration = Duration::from_secs(3600);
/// Peers whose bad behaviour is remembered, count; beyond it the oldest is forgotten.
pub const BANNED_PEERS_MAX: usize = 1024;

/// Hints of peers (addresses, holdings) waiting for the driver, count; the rest is dropped.
pub const HINT_QUEUE_MAX: usize = 1024;
/// Time between two looks at the member list that nobody asked for.
pub const MEMBERS_INTERVAL: Duration = Duration::from_millis(250);
/// Time between two writes of the address book.
pub const BOOK_INTERVAL: Duration = Duration::from_secs(5);

// Discovery ----------------------------------------------------------------------------------------

/// Time between mDNS queries once the first answers are in.
pub const MDNS_QUERY_INTERVAL: Duration = Duration::from_secs(30);

// Joining ------------------------------------------------------------------------------------------

/// Longest frame before the proof, bytes.
pub const JOIN_FRAME_LEN_MAX: usize = 4096;
/// How long a joiner looks for somebody who answers before it gives up.
pub const JOIN_REACH_TIME: Duration = Duration::from_secs(15);
/// Time between the rounds of dials of a joiner.
pub const JOIN_RETRY: Duration = Duration::from_secs(2);
/// Join attempts answered within [`JOIN_WINDOW`], count, all peers together.
pub const JOIN_ATTEMPTS_MAX: usize = 30;
/// Window of [`JOIN_ATTEMPTS_MAX`].
pub const JOIN_WINDOW: Duration = Duration::from_secs(60);
/// The whole join, as the joiner sees it, unless the caller gives less.
pub const JOIN_TIME: Duration = Duration::from_secs(60);

// Chunks -------------------------------------------------------------------------------------------

/// Ids in one request, count.
pub const REQUEST_IDS_MAX: usize = 256;
/// Bytes one request should bring, by the average seen so far.
pub const REQUEST_LEN_GOAL: u64 = 4 << 20;
/// Bytes asked for and not yet here, a peer and lane: the pipe never drains between requests.
pub const WINDOW_LEN_MAX: u64 = 16 << 20;
/// Ids asked for and not yet here, a peer and lane.
pub const WINDOW_IDS_MAX: usize = 1024;
/// Requests a responder queues for one stream, count; it reads no further then.
pub const REQUEST_QUEUE_MAX: usize = 64;
/// Streams a responder serves for one peer, count: foreground, background and a reconnection.
pub const SERVED_STREAMS_MAX: usize = 6;
/// Longest chunk as it travels, bytes: no longer than raw, or it would not have been compressed.
pub const CHUNK_STORED_LEN_MAX: usize = cas::chunker::CHUNK_LEN_MAX;
/// Bytes of records a responder gathers before it writes them.
pub const SERVE_BLOCK_LEN: usize = 256 * 1024;
/// Blocks read ahead of the wire, a stream, count.
pub const SERVE_AHEAD_MAX: usize = 6;
/// Bytes read from a chunk stream at once.
pub const READ_BLOCK_LEN: usize = 256 * 1024;
/// Batches of received chunks waiting to be written to the store, a stream, count.
pub const STORE_QUEUE_MAX: usize = 8;
/// Batches written to the store at once, all peers together, count.
pub const STORE_PARALLEL_MAX: usize = 2;
/// A peer that owes us chunks and sends no byte for this long loses the stream.
pub const CHUNK_SILENCE_TIME: Duration = Duration::from_secs(20);
/// A foreground chunk not here after this is asked for from another peer as well.
pub const HEDGE_TIME: Duration = Duration::from_millis(1500);
/// Missing ids taken from one content at a time, count.
pub const EXAMINE_IDS_MAX: usize = 8192;
/// Contents examined in one go, count.
pub const EXAMINE_CONTENTS_MAX: usize = 512;
/// Chunks the scheduler tracks, count; further contents wait their turn.
pub const TRACKED_CHUNKS_MAX: usize = 64 * 1024;
/// Contents that may be wanted at once, count.
pub const WANTED_CONTENTS_MAX: usize = 4 << 20;
/// First wait before a content nobody had is asked for again.
pub const RETRY_MIN: Duration = Duration::from_secs(2);
/// Longest such wait while few wait.
pub const RETRY_MAX: Duration = Duration::from_secs(60);
/// Contents nobody had that may be asked for again in a millisecond, count.
pub const RETRY_CONTENTS_PER_MS: u64 = 16;
/// Wait after the store said that the disk is full.
pub const FULL_RETRY: Duration = Duration::from_secs(30);

// Locks --------------------------------------------------------------------------------------------

/// A peer's locks end when nothing of it has arrived for this long, milliseconds.
pub const LOCK_LEASE_MS: u64 = 15_000;
/// A holder counts a grant for this long after it sent what was answered last: the lease less two clocks that are 1 %
/// wrong, less a margin.
pub const LOCK_COUNTED_MS: u64 = 14_000;
/// Time between two renewals, milliseconds.
pub const LOCK_RENEW_MS: u64 = 5_000;
/// A claim waits at least this long for the silent, and four round trips, milliseconds.
pub const LOCK_WAIT_MIN_MS: u64 = 300;
/// And never longer than this, milliseconds.
pub const LOCK_WAIT_MAX_MS: u64 = 2_000;
/// Round trips that a claim waits for the silent.
pub const LOCK_WAIT_TRIPS: u64 = 4;
/// Time between two looks at the lock table's leases, milliseconds: well below the lease, or every pause would count as
/// a sleep.
pub const LOCK_TICK_MS: u64 = 1_000;
/// Members that were last seen longer ago do not count among those whose grant makes a lock whole, milliseconds.
pub const LOCK_MEMBER_AGE_MS: u64 = 30 * 24 * 3600 * 1000;
/// Claims of one peer, held and waiting, and as many presences; own ones are bounded alike.
pub const LOCKS_OF_PEER_MAX: usize = 4096;
/// Directories above a name, count.
pub const LOCK_ABOVE_MAX: usize = 64;
/// Directories named by all claims of one peer together, count.
pub const LOCK_ABOVE_TOTAL_MAX: usize = 64 * 1024;
/// Versions a claim names, count.
pub const LOCK_BASES_MAX: usize = 64;
/// Claims in one message, count: with all their directories they fit a frame.
pub const LOCK_CLAIMS_MAX: usize = 32;
/// Names in one message, count.
pub const LOCK_NAMES_MAX: usize = 256;
/// Longest frame of the lock stream, bytes.
pub const LOCK_FRAME_LEN_MAX: usize = 256 * 1024;
/// Lock messages of one peer at once, count.
pub const LOCK_BURST_MAX: u64 = 4096;
/// And in every second after that, count; answers to us are not counted.
pub const LOCK_RATE_MAX: u64 = 256;
/// What we send at once, count: three quarters of what a peer takes.
pub const LOCK_SEND_BURST_MAX: u64 = 3072;
/// And in every second after that, count.
pub const LOCK_SEND_RATE_MAX: u64 = 192;
/// Lock messages queued towards one peer, count; one that does not read loses the stream.
pub const LOCK_QUEUE_MAX: usize = 8192;

// Handle -------------------------------------------------------------------------------------------

/// Commands waiting for the driver, count.
pub const COMMAND_QUEUE_MAX: usize = 256;
/// Orderly end of all sessions at shutdown.
pub const SHUTDOWN_TIME: Duration = Duration::from_secs(3);
