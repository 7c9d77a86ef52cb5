use futures_util::FutureExt as _;

use super::*;

async fn take(limiter: &Arc<Limiter>, count: usize) -> Vec<Permit> {
    let mut permits = Vec::new();
    for _ in 0..count {
        permits.push(limiter.acquire(Instant::now(), 1).await);
    }
    permits
}

#[tokio::test]
async fn it_grows_while_all_are_used_and_no_further_than_its_most() {
    let limiter = Limiter::new();
    for _ in 0..200 {
        let permits = take(&limiter, 2).await;
        permits.into_iter().for_each(Permit::succeeded);
    }
    assert_eq!(limits::dataset::GETS_FIRST, limiter.limit(), "two at a time try nothing");
    for _ in 0..200 {
        let permits = take(&limiter, limiter.limit()).await;
        permits.into_iter().for_each(Permit::succeeded);
    }
    assert_eq!(limits::dataset::GETS_MOST, limiter.limit());
    assert_eq!(0, limiter.lock().running);
}

#[tokio::test]
async fn one_round_of_complaints_halves_it_once_and_it_comes_back_slowly() {
    let limiter = Limiter::new();
    let permits = take(&limiter, 16).await;
    permits.into_iter().for_each(Permit::too_many);
    assert_eq!((8, 0), (limiter.limit(), limiter.lock().running));
    let permits = take(&limiter, 8).await;
    permits.into_iter().for_each(Permit::too_many);
    assert_eq!((4, 0), (limiter.limit(), limiter.lock().running));
    for limit in 4..10 {
        let mut left = limit;
        while left > 0 {
            assert_eq!(limit, limiter.limit(), "one more for each round");
            let mut permits = take(&limiter, limit).await;
            permits.pop().expect("one of them").succeeded();
            left -= 1;
        }
    }
    assert_eq!(0, limiter.lock().running);
}

#[tokio::test]
async fn it_never_shrinks_to_nothing() {
    let limiter = Limiter::new();
    for _ in 0..20 {
        limiter.acquire(Instant::now(), 1).await.too_many();
    }
    assert_eq!(limits::dataset::GETS_LEAST, limiter.limit());
}
#[tokio::test]
async fn whoever_needs_it_first_has_its_turn_first_and_who_has_gone_takes_none() {
    let limiter = Limiter::new();
    let held = take(&limiter, limiter.limit()).await;
    let now = Instant::now();
    let order = Arc::new(Mutex::new(Vec::new()));
    let waits = |after: u64| {
        let (limiter, order) = (Arc::clone(&limiter), Arc::clone(&order));
        async move {
            let permit = limiter.acquire(now + Duration::from_secs(after), 1).await;
            order.lock().expect("nobody panics").push(after);
            permit.succeeded();
        }
    };
    let [gone, late, soon, first] = [0, 9, 5, 1].map(|after| tokio::spawn(waits(after)));
    while limiter.lock().waiting.len() < 4 {
        tokio::task::yield_now().await;
    }
    gone.abort();
    gone.await.expect_err("it was ended");
    drop(held);
    for waited in [late, soon, first] {
        waited.await.expect("it had its turn");
    }
    let state = limiter.lock();
    assert_eq!((0, 0), (state.running, state.waiting.len()));
    assert_eq!([1, 5, 9].as_slice(), order.lock().expect("nobody panics").as_slice());
}
#[tokio::test]
async fn before_the_link_is_known_little_is_asked_for_and_more_with_each_success() {
    let limiter = Limiter::new();
    let half = limits::dataset::GETS_FIRST_BYTES / 2;
    let now = Instant::now();
    let has_room = |limiter: &Limiter| limiter.lock().has_room(now, half, now);
    let [first, second] = [limiter.acquire(now, half).await, limiter.acquire(now, half).await];
    let third = limiter.acquire(now, 4 * half).now_or_never();
    assert!(third.is_none(), "there are two already, and this is too much beside them");
    first.brought(Duration::from_millis(100), half);
    assert!(has_room(&limiter));
    let later = now + limits::dataset::GETS_FIRST_SOON * 2;
    let other = limiter.acquire(now, 1).await;
    assert!(!limiter.lock().has_room(later, 1, now), "others may want something at once");
    drop(other);
    second.brought(Duration::from_millis(100), half);
    let larger = limiter.acquire(now, 100 * half).await;
    assert!(has_room(&limiter), "it has company");
    let _beside = limiter.acquire(now, half).await;
    assert!(!has_room(&limiter));
    drop(larger);
    assert!(has_room(&limiter));
}
