//! Joining with good, expired, used, foreign and unknown tickets.

use std::time::Duration;

use journal::op::Role;
use libp2p::Multiaddr;

use crate::error::JoinError;
use crate::handle::Event;
use crate::host::JournalHost as _;
use crate::invite::Ticket;
use crate::join::{JoinOptions, JoinOutcome, join};
use crate::testing::journal::{Invite, genesis, signer};
use crate::testing::node::{TestNode, device, node, until};
use crate::wire::JoinRefusal;

fn ticket(secret: u8, host: &TestNode) -> Ticket {
    Ticket {
        drive: host.journal.drive_id(),
        secret: [secret; 32],
        role: Role::Editor,
        expires: u64::MAX,
        inviter: host.device,
        addrs: host.handle.listen_addrs(),
    }
}

async fn inviting(invite: Invite) -> (TestNode, Ticket) {
    let host = node(1, &[1], vec![]).await;
    let ticket = ticket(77, &host);
    host.journal.add_invite(ticket.invite_key(), invite);
    host.handle.members_changed();
    (host, ticket)
}

async fn try_join(ticket: &Ticket, n: u8) -> Result<JoinOutcome, JoinError> {
    let options = JoinOptions { mdns: false, time: Duration::from_secs(30) };
    join(ticket, *signer(n).secret_bytes(), "second", options).await
}

/// The door opens a moment after the invitation was written; until then a stranger finds it shut.
async fn join_once_open(ticket: &Ticket, n: u8) -> Result<JoinOutcome, JoinError> {
    loop {
        match try_join(ticket, n).await {
            Err(JoinError::Unreachable { .. }) => tokio::task::yield_now().await,
            other => return other,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_good_ticket_admits_and_the_journal_follows() {
    let (mut host, ticket) = inviting(Invite { uses: 1, expired: false }).await;
    host.journal.author("first", &[]);
    let parsed: Ticket = ticket.to_string().parse().unwrap();
    let outcome = join_once_open(&parsed, 2).await.unwrap();
    assert_eq!(outcome.genesis, genesis(1).1.to_vec());
    assert_eq!(outcome.host, host.device);
    assert!(host.journal.is_member(device(2)));
    let known: Vec<&Multiaddr> = outcome.members.iter().flat_map(|(_, addrs)| addrs).collect();
    assert!(known.contains(&&host.addr()));
    host.expect_event(Event::Joined(device(2))).await;
    let joined = node(2, &[1, 2], outcome.addr.into_iter().collect()).await;
    until("the journal", || joined.journal.texts().contains("first")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_used_ticket_is_refused_but_not_to_who_used_it() {
    let (host, ticket) = inviting(Invite { uses: 1, expired: false }).await;
    join_once_open(&ticket, 2).await.unwrap();
    let other = try_join(&ticket, 3).await;
    assert!(matches!(other, Err(JoinError::Refused(JoinRefusal::Used))), "{other:?}");
    assert!(!host.journal.is_member(device(3)));
    // Its answer was lost, say: trying again must not need a second invitation.
    assert!(try_join(&ticket, 2).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_ticket_is_refused() {
    let (host, ticket) = inviting(Invite { uses: 1, expired: true }).await;
    let result = join_once_open(&ticket, 2).await;
    assert!(matches!(result, Err(JoinError::Refused(JoinRefusal::Expired))), "{result:?}");
    assert!(!host.journal.is_member(device(2)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_drive_and_an_unknown_invitation_get_the_same_answer() {
    let (host, good) = inviting(Invite { uses: 1, expired: false }).await;
    let foreign = Ticket { drive: genesis(5).0, ..good.clone() };
    let result = join_once_open(&foreign, 2).await;
    assert!(matches!(result, Err(JoinError::Refused(JoinRefusal::Invalid))), "{result:?}");
    let made_up = ticket(78, &host);
    let result = join_once_open(&made_up, 2).await;
    assert!(matches!(result, Err(JoinError::Refused(JoinRefusal::Invalid))), "{result:?}");
    assert!(!host.journal.is_member(device(2)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_at_the_addresses_is_said_so() {
    let host = node(1, &[1], vec![]).await;
    let ticket = ticket(77, &host);
    host.handle.shutdown().await;
    let options = JoinOptions { mdns: false, time: Duration::from_secs(3) };
    let result = join(&ticket, *signer(2).secret_bytes(), "second", options).await;
    assert!(matches!(result, Err(JoinError::TimedOut | JoinError::Unreachable { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_open_invitations_strangers_are_not_even_challenged() {
    let host = node(1, &[1], vec![]).await;
    let ticket = ticket(77, &host);
    let options = JoinOptions { mdns: false, time: Duration::from_secs(3) };
    let result = join(&ticket, *signer(2).secret_bytes(), "second", options).await;
    assert!(
        matches!(result, Err(JoinError::TimedOut | JoinError::Unreachable { .. })),
        "{result:?}"
    );
}
