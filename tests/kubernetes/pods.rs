//! Pods as Kratos marks them.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_register_themselves_and_are_followed() {
    let Some(real) = shared() else { return };
    for pod in ["p-a", "p-b", "p-c"] {
        real.make_pod(pod, &[9000]);
    }
    let made = |id: &str| Arc::new(instance("helloworld", id, 9000));
    let (a, b) = (pods_of(&real).with_pod("p-a"), pods_of(&real).with_pod("p-b"));
    let mut watch = pods_of(&real).watch(&name("helloworld"));
    until(&mut watch, &[]).await;
    let (one, two) = (made("inst-a"), made("inst-b"));
    let lease = a.register(&one).await.unwrap();
    until(&mut watch, &["inst-a"]).await;
    assert_eq!(watch.view().snapshot().unwrap().instances()[0], one, "found as it was registered");
    let other = b.register(&two).await.unwrap();
    until(&mut watch, &["inst-a", "inst-b"]).await;
    assert_eq!(a.renew(&lease).await.unwrap(), Renewal::Kept);

    // The same id again is idempotent, and ends the lease before.
    let again = a.register(&one).await.unwrap();
    assert_eq!(a.renew(&lease).await.unwrap(), Renewal::Lost);
    a.deregister(&lease).await.unwrap();
    assert_eq!(a.renew(&again).await.unwrap(), Renewal::Kept);

    // A Pod is an instance of one service; ports must be declared; W9: labels have rules.
    for refused in
        [instance("other", "x", 9000), instance("helloworld", "x", 9001), instance("helloworld", "h/1", 9000)]
    {
        let error = a.register(&Arc::new(refused)).await.unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidInput, "{error:#}");
    }
    let nowhere = pods_of(&real).with_pod("p-none").register(&one).await.unwrap_err();
    assert_eq!(nowhere.kind(), Kind::NotFound, "{nowhere:#}");

    // Labels taken away by hand are a lost lease.
    real.patch_pod("p-a", &json!({"metadata": {"labels": {"kratos-service-app": ""}}}));
    assert_eq!(a.renew(&again).await.unwrap(), Renewal::Lost);
    until(&mut watch, &["inst-b"]).await;
    let again = a.register(&one).await.unwrap();
    until(&mut watch, &["inst-a", "inst-b"]).await;

    // W4: a bad annotation costs only its Pod; what Kratos wrote is found.
    let kratos: Value = serde_json::from_str(include_str!("../data/kubernetes/patch.json")).unwrap();
    let mut bad = kratos.clone();
    bad["metadata"]["labels"]["kratos-service-id"] = "inst-c".into();
    bad["metadata"]["annotations"]["kratos-service-metadata"] = "{".into();
    real.patch_pod("p-c", &bad);
    eventually("one is skipped", || watch.view().snapshot().unwrap().skipped() == 1).await;
    assert_eq!(seen(&watch), ["inst-a", "inst-b"]);
    bad["metadata"]["annotations"] = kratos["metadata"]["annotations"].clone();
    real.patch_pod("p-c", &bad);
    until(&mut watch, &["inst-a", "inst-b", "inst-c"]).await;

    // K5: not ready, or gone, is out.
    let unready = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}}).to_string();
    real.ask("PATCH", &format!("{PODS}/p-c/status"), MERGE, &unready);
    until(&mut watch, &["inst-a", "inst-b"]).await;
    delete(&real, &format!("{PODS}/p-b"));
    until(&mut watch, &["inst-a"]).await;
    assert_eq!(b.renew(&other).await.unwrap(), Renewal::Lost);

    // A renewal in flight brings nothing back.
    for _ in 0..10 {
        let lease = a.register(&one).await.unwrap();
        let (renewed, left) = tokio::join!(a.renew(&lease), a.deregister(&lease));
        renewed.unwrap();
        left.unwrap();
        assert!(a.list(one.service()).await.unwrap().instances().is_empty());
    }
    a.deregister(&again).await.unwrap();
    until(&mut watch, &[]).await;

    // Another's labels are left as they are.
    let lease = a.register(&one).await.unwrap();
    real.patch_pod("p-a", &json!({"metadata": {"labels": {"kratos-service-id": "another"}}}));
    a.deregister(&lease).await.unwrap();
    until(&mut watch, &["another"]).await;
    assert_eq!(a.renew(&lease).await.unwrap(), Renewal::Lost);
}
