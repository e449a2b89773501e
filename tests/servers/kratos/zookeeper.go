package main

import (
	"context"
	"encoding/json"
	"errors"
	"path"
	"time"

	"github.com/go-kratos/kratos/v2/registry"
	"github.com/go-zookeeper/zk"
)

// Kratos's registry for ZooKeeper cannot be had as a module of its own: this writes and reads what it
// does, where it does, for Kratos's own servers and clients.
type zooKeeper struct{ conn *zk.Conn }

const root = "/microservices"

func openZooKeeper(addresses []string) (both, error) {
	conn, _, err := zk.Connect(addresses, 5*time.Second, zk.WithLogInfo(false))
	return zooKeeper{conn}, err
}

func (z zooKeeper) Register(_ context.Context, instance *registry.ServiceInstance) error {
	for _, parent := range []string{root, path.Join(root, instance.Name)} {
		_, err := z.conn.Create(parent, nil, 0, zk.WorldACL(zk.PermAll))
		if err != nil && !errors.Is(err, zk.ErrNodeExists) {
			return err
		}
	}
	data, err := json.Marshal(instance)
	if err != nil {
		return err
	}
	_, err = z.conn.Create(path.Join(root, instance.Name, instance.ID), data, zk.FlagEphemeral, zk.WorldACL(zk.PermAll))
	return err
}

func (z zooKeeper) Deregister(_ context.Context, instance *registry.ServiceInstance) error {
	return z.conn.Delete(path.Join(root, instance.Name, instance.ID), -1)
}

func (z zooKeeper) list(name string) ([]*registry.ServiceInstance, <-chan zk.Event, error) {
	ids, _, changes, err := z.conn.ChildrenW(path.Join(root, name))
	if err != nil {
		return nil, nil, err
	}
	var instances []*registry.ServiceInstance
	for _, id := range ids {
		data, _, err := z.conn.Get(path.Join(root, name, id))
		if err != nil {
			return nil, nil, err
		}
		instance := new(registry.ServiceInstance)
		if err := json.Unmarshal(data, instance); err != nil {
			return nil, nil, err
		}
		instances = append(instances, instance)
	}
	return instances, changes, nil
}

func (z zooKeeper) GetService(_ context.Context, name string) ([]*registry.ServiceInstance, error) {
	instances, _, err := z.list(name)
	return instances, err
}

func (z zooKeeper) Watch(ctx context.Context, name string) (registry.Watcher, error) {
	return &watcher{ctx: ctx, from: z, name: name}, nil
}

type watcher struct {
	ctx     context.Context
	from    zooKeeper
	name    string
	changes <-chan zk.Event
}

func (w *watcher) Next() ([]*registry.ServiceInstance, error) {
	if w.changes != nil {
		select {
		case <-w.ctx.Done():
			return nil, w.ctx.Err()
		case <-w.changes:
		}
	}
	instances, changes, err := w.from.list(w.name)
	w.changes = changes
	return instances, err
}

func (w *watcher) Stop() error { return nil }
